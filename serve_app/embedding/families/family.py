"""What a family of models is: one value of `Family`, in a file of its own.

A family names no engine. Its functions get a network of transformers as `Any` and call it, so this package imports
neither PyTorch nor transformers, and a replica on a CPU reads the table as the ingress does. Letters for shapes: B
images or texts, S pixels along a side, T tokens, D dimension of a vector.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Network = Any
"""A network that `AutoModel` loads."""
Tensor = Any
"""A tensor of PyTorch."""
Config = dict[str, Any]
"""The content of a `config.json`."""

ImageVectors = Callable[[Network, Tensor], Tensor]
"""(network, (B, 3, S, S) normalised pixels) -> (B, D)."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published checkpoint. `gated` says that its repository wants a licence to be accepted before a download."""

    name: str
    repository: str
    dimension: int
    licence: str
    gated: bool = False


@dataclass(frozen=True, slots=True)
class TextTower:
    """How a family embeds text.

    Args:
        vectors: (network, (B, T) token ids, (B, T) mask of real tokens) -> (B, D), comparable with image vectors.
        max_tokens: the largest T of a configuration, special tokens included; longer texts are cut to it.
        pads_to_max: whether every text is padded to `max_tokens`, as the model was trained; otherwise a text has the
            vector that it has without padding.
    """

    vectors: Callable[[Network, Tensor, Tensor], Tensor]
    max_tokens: Callable[[Config], int]
    pads_to_max: bool


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    Args:
        model_types: the values of `model_type` in `config.json` that belong to it.
        poolings: by name, what becomes the vector. The name is part of the space key and of a model's name
            (`model?pooling=name`); the first is the default unless `asks_for_pooling`.
        geometry_without_file: the processor's configuration where a checkpoint has no file; None refuses such folders.
        misfit: (config, S) -> why the network cannot take images of S pixels, or None.
        unused_tensors: tensors that only training needs; a checkpoint may lack them.
    """

    name: str
    model_types: tuple[str, ...]
    poolings: Mapping[str, ImageVectors]
    known: tuple[KnownModel, ...] = ()
    text: TextTower | None = None
    asks_for_pooling: bool = False
    geometry_without_file: Config | None = None
    misfit: Callable[[Config, int], str | None] = lambda config, side_px: None
    unused_tensors: frozenset[str] = frozenset()


def fixed_side(config: Config, side_px: int) -> str | None:
    """`Family.misfit` of networks whose position table is for one size and is not interpolated."""
    expected = config.get("vision_config", {}).get("image_size", 224)
    return None if side_px == expected else f"images of {side_px} pixels, where the network takes {expected}"
