"""DINOv2, with and without registers: the class token of the last layer."""

from serve_app.embedding.families.family import Family, KnownModel, Network, Tensor
from serve_app.images.preprocessing import DINOV2

SIZES = {"small": 384, "base": 768, "large": 1024, "giant": 1536}


def _class_token(network: Network, pixels: Tensor) -> Tensor:
    return network(pixels).last_hidden_state[:, 0]


FAMILY = Family(
    name="DINOv2",
    model_types=("dinov2", "dinov2_with_registers"),
    poolings={"cls": _class_token},
    known=(
        *(KnownModel(f"dinov2-{size}", f"facebook/dinov2-{size}", n, "Apache-2.0") for size, n in SIZES.items()),
        *(
            KnownModel(f"dinov2-{size}-reg", f"facebook/dinov2-with-registers-{size}", n, "Apache-2.0")
            for size, n in SIZES.items()
        ),
    ),
    geometry_without_file=DINOV2,
    unused_tensors=frozenset({"embeddings.mask_token"}),
)
