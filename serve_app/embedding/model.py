"""What every engine offers: (B, S, S, 3) uint8 pixels in, (B, D) float32 class tokens out.

This module knows neither engine: `serve_app.embedding.loading` chooses OpenVINO for CPUs and PyTorch for GPUs. Letters
for shapes: B images, S pixels along a side, D dimension of a vector.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve_app.config import Precision
from serve_app.embedding import weights
from serve_app.images.decode import PREPROCESSING_VERSION, Preprocessing
from serve_app.records import ModelCard, VectorArray

CPU_SPACES = {"bf16": "openvino bf16 1"}
"""What tells a CPU's vectors of a precision from those of other engines and of earlier releases, in the space key.

fp32 is missing, because the vectors of all engines are equal up to rounding, and int8, because PyTorch still computes
it (docs/decisions/0013-openvino.md).
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

    def vectors(self, images: NDArray[np.uint8]) -> VectorArray:
        """Embed preprocessed images.

        Args:
            images: (B, S, S, 3) uint8 RGB as `images.decode` makes them, S = `preprocessing.crop_px`. B may be 0,
                and the array may be read-only.

        Returns:
            (B, D) float32 vectors, not normalised, in the order of `images`.

        Raises:
            ValueError: `images` has another shape or dtype.
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

    def card(self, dimension: int) -> ModelCard:
        """The card of the loaded model, whose vectors have so many components."""
        return ModelCard(
            name=self.name,
            dimension=dimension,
            space_key=self._space_key(),
            device=self.device,
            precision=self.precision,
        )

    def _space_key(self) -> str:
        """The space key; models with equal keys make comparable vectors, whatever their names and devices."""
        pixels = self.preprocessing
        parts: tuple[object, ...] = (
            self.fingerprint,
            "cls",
            (pixels.resize_px, pixels.crop_px, pixels.mean, pixels.std),
            PREPROCESSING_VERSION,
            self.precision,
        )
        if self.device == "cpu" and self.precision in CPU_SPACES:
            parts = (*parts, CPU_SPACES[self.precision])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def require_pixels(images: NDArray[np.uint8], side_px: int) -> None:
    """Raises `ValueError` unless `images` is (B, S, S, 3) uint8 with S = `side_px`."""
    if images.shape[1:] != (side_px, side_px, 3) or images.dtype != np.uint8:
        raise ValueError(f"expected (B, {side_px}, {side_px}, 3) uint8, got {images.shape} {images.dtype}")
