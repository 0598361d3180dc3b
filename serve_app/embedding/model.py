"""What every engine offers: (B, S, S, 3) uint8 pixels or texts in, (B, D) float32 vectors out.

This module knows neither engine: `serve_app.embedding.loading` chooses OpenVINO for CPUs and PyTorch for GPUs. Letters
for shapes: B images, S pixels along a side, D dimension of a vector.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serve_app.config import Precision
from serve_app.embedding import checkpoint, families, weights
from serve_app.embedding.families.family import Family
from serve_app.embedding.text import TextEncoder
from serve_app.images.decode import PREPROCESSING_VERSION, Preprocessing
from serve_app.records import IMAGES_ONLY, ModelCard, VectorArray

CPU_SPACES = {"bf16": "openvino bf16 1", "int8": "openvino int8 1"}
"""What tells a CPU's vectors of a precision from those of other engines and of earlier releases, in the space key.

fp32 is missing, because the vectors of all engines are equal up to rounding (docs/decisions/0013-openvino.md).
"""


class VisionModel(Protocol):
    """A loaded model. Several threads may call `vectors`."""

    @property
    def card(self) -> ModelCard:
        """Name, dimension, space key, device and precision."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """How image files become the pixels that `vectors` takes."""
        ...

    def vectors(self, images: NDArray[Any]) -> VectorArray:
        """Embed preprocessed images.

        Args:
            images: (B, S, S, 3) RGB as `images.decode` makes them, S = `preprocessing.crop_px`, of the type
                `preprocessing.dtype`. B may be 0, and the array may be read-only.

        Returns:
            (B, D) float32 vectors, not normalised, in the order of `images`.

        Raises:
            ValueError: `images` has another shape or dtype.
        """
        ...

    def text(self) -> TextEncoder:
        """The text tower, which is loaded at the first call.

        Raises:
            NoTextTower: the model takes no text, and `card.no_text` says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A checkpoint folder, and how it shall be run: everything that an engine needs to load it."""

    directory: Path
    name: str
    preprocessing: Preprocessing
    device: str
    precision: Precision

    @property
    def fingerprint(self) -> str:
        """See `weights.fingerprint`."""
        return weights.fingerprint(self.directory)

    @property
    def family(self) -> Family:
        """The checkpoint's family. Raises `ModelUnavailable`: its configuration cannot be read."""
        return checkpoint.family_of(self.directory)

    @property
    def pooling(self) -> str:
        """What becomes the vector, by the name or by the family."""
        return families.pooling_of(self.name, self.family)

    def card(self, dimension: int, no_text: str = IMAGES_ONLY) -> ModelCard:
        """The card of the loaded model, whose vectors have so many components; `no_text` says why it takes no text."""
        return ModelCard(
            name=self.name,
            dimension=dimension,
            space_key=self._space_key(),
            device=self.device,
            precision=self.precision,
            no_text=no_text,
        )

    def _space_key(self) -> str:
        """The space key; models with equal keys make comparable vectors, whatever their names and devices."""
        pixels = self.preprocessing
        parts: tuple[object, ...] = (
            self.fingerprint,
            self.pooling,
            (pixels.resize_px, pixels.crop_px, pixels.mean, pixels.std),
            PREPROCESSING_VERSION,
            self.precision,
        )
        if self.device == "cpu" and self.precision in CPU_SPACES:
            parts = (*parts, CPU_SPACES[self.precision])
        # They are left out where they have the values that all models had at first, so that old vectors stay valid.
        if (pixels.fit, pixels.filter) != ("shortest_edge", "bicubic"):
            parts = (*parts, pixels.fit, pixels.filter)
        if not pixels.rounds:
            parts = (*parts, "unrounded")
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def require_pixels(images: NDArray[Any], preprocessing: Preprocessing) -> None:
    """Raises `ValueError` unless `images` is (B, S, S, 3) with S = `crop_px`, of the type `preprocessing.dtype`."""
    side_px, dtype = preprocessing.crop_px, preprocessing.dtype
    if images.shape[1:] != (side_px, side_px, 3) or images.dtype != dtype:
        raise ValueError(f"expected (B, {side_px}, {side_px}, 3) {dtype}, got {images.shape} {images.dtype}")


def blank(preprocessing: Preprocessing, n_images: int) -> NDArray[Any]:
    """Black images, (n_images, S, S, 3), as `VisionModel.vectors` takes them."""
    return np.zeros((n_images, preprocessing.crop_px, preprocessing.crop_px, 3), preprocessing.dtype)
