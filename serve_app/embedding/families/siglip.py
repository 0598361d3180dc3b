"""SigLIP, and SigLIP 2 of fixed resolution, which has the same architecture: the pooled output of either tower.

Checkpoints of NaFlex, whose `model_type` is `siglip2`, take images of any shape as lists of patches; they are refused.
"""

from serve_app.embedding.families.family import Config, Family, KnownModel, Network, Tensor, TextTower, fixed_side


def _image_vectors(network: Network, pixels: Tensor) -> Tensor:
    return network.get_image_features(pixel_values=pixels).pooler_output


def _text_vectors(network: Network, ids: Tensor, mask: Tensor) -> Tensor:
    return network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def _max_tokens(config: Config) -> int:
    return int(config.get("text_config", {}).get("max_position_embeddings", 64))


FAMILY = Family(
    name="SigLIP",
    model_types=("siglip",),
    poolings={"pooled": _image_vectors},
    known=(
        KnownModel("siglip2-base", "google/siglip2-base-patch16-224", 768, "Apache-2.0"),
        KnownModel("siglip2-large", "google/siglip2-large-patch16-256", 1024, "Apache-2.0"),
        KnownModel("siglip2-so400m", "google/siglip2-so400m-patch14-384", 1152, "Apache-2.0"),
        KnownModel("siglip-base", "google/siglip-base-patch16-224", 768, "Apache-2.0"),
        KnownModel("siglip-so400m", "google/siglip-so400m-patch14-384", 1152, "Apache-2.0"),
    ),
    text=TextTower(_text_vectors, _max_tokens, pads_to_max=True),
    misfit=fixed_side,
)
