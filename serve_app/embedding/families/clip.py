"""CLIP: the projected output of either tower."""

from serve_app.embedding.families.family import Config, Family, KnownModel, Network, Tensor, TextTower, fixed_side


def _image_vectors(network: Network, pixels: Tensor) -> Tensor:
    return network.get_image_features(pixel_values=pixels).pooler_output


def _text_vectors(network: Network, ids: Tensor, mask: Tensor) -> Tensor:
    return network.get_text_features(input_ids=ids, attention_mask=mask).pooler_output


def _max_tokens(config: Config) -> int:
    return int(config.get("text_config", {}).get("max_position_embeddings", 77))


FAMILY = Family(
    name="CLIP",
    model_types=("clip",),
    poolings={"projected": _image_vectors},
    known=(
        KnownModel("clip-base", "openai/clip-vit-base-patch16", 512, "MIT"),
        KnownModel("clip-large", "openai/clip-vit-large-patch14", 768, "MIT"),
    ),
    text=TextTower(_text_vectors, _max_tokens, pads_to_max=False),
    misfit=fixed_side,
)
