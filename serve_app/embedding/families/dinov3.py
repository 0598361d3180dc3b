"""DINOv3, as ViT and as ConvNeXt: the normalised class token, or the mean of the patches."""

from serve_app.embedding.families.family import Config, Family, KnownModel, Network, Tensor

LICENCE = "DINOv3 License"
VITS = {"small": ("s16", 384), "small-plus": ("s16plus", 384), "base": ("b16", 768), "large": ("l16", 1024)}
CONVNEXTS = {"tiny": 768, "small": 768, "base": 1024, "large": 1536}


def _class_token(network: Network, pixels: Tensor) -> Tensor:
    return network(pixels).pooler_output


def _mean_of_patches(network: Network, pixels: Tensor) -> Tensor:
    first_patch = 1 + getattr(network.config, "num_register_tokens", 0)
    return network(pixels).last_hidden_state[:, first_patch:].mean(1)


def _misfit(config: Config, side_px: int) -> str | None:
    patch_px = config.get("patch_size", 16) if config.get("model_type") == "dinov3_vit" else 32
    return None if side_px >= patch_px else f"images of {side_px} pixels, less than a patch of {patch_px}"


FAMILY = Family(
    name="DINOv3",
    model_types=("dinov3_vit", "dinov3_convnext"),
    poolings={"cls": _class_token, "mean": _mean_of_patches},
    known=(
        *(
            KnownModel(f"dinov3-{size}", f"facebook/dinov3-vit{code}-pretrain-lvd1689m", n, LICENCE, gated=True)
            for size, (code, n) in VITS.items()
        ),
        *(
            KnownModel(
                f"dinov3-convnext-{size}", f"facebook/dinov3-convnext-{size}-pretrain-lvd1689m", n, LICENCE, gated=True
            )
            for size, n in CONVNEXTS.items()
        ),
    ),
    misfit=_misfit,
    unused_tensors=frozenset({"embeddings.mask_token"}),
)
