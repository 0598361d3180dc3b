"""Any other checkpoint that `AutoModel` loads; whoever names it says what becomes the vector: `folder?pooling=mean`."""

from serve_app.embedding.families.family import Family, Network, Tensor


def _class_token(network: Network, pixels: Tensor) -> Tensor:
    return network(pixel_values=pixels).last_hidden_state[:, 0]


def _mean_of_tokens(network: Network, pixels: Tensor) -> Tensor:
    return network(pixel_values=pixels).last_hidden_state.mean(1)


def _pooled(network: Network, pixels: Tensor) -> Tensor:
    return network(pixel_values=pixels).pooler_output.flatten(1)


FAMILY = Family(
    name="AutoModel",
    model_types=(),
    poolings={"mean": _mean_of_tokens, "cls": _class_token, "pooled": _pooled},
    asks_for_pooling=True,
)
