"""The geometry and normalisation that a checkpoint was trained with, and the part of an image that becomes its crop."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from serve_app.errors import ModelUnavailable
from serve_app.images.resampling import Box


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The geometry and normalisation of a checkpoint; the defaults are DINOv2's published values.

    `mean` and `std` are per RGB channel, for values in [0, 1].
    """

    resize_px: int = 256
    crop_px: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @classmethod
    def from_checkpoint(cls, directory: Path) -> "Preprocessing":
        """Read `preprocessor_config.json`; without that file, return DINOv2's published values.

        Raises:
            ModelUnavailable: the file is damaged, or asks for anything but a bicubic resize of the shortest edge, a
                square centre crop within it, and normalisation.
        """
        file = directory / "preprocessor_config.json"
        if not file.is_file():
            return cls()
        try:
            config = json.loads(file.read_bytes())
            problem = _irreproducible(config)
            preprocessing = cls(
                resize_px=int(config["size"]["shortest_edge"]),
                crop_px=int(config["crop_size"]["height"]),
                mean=tuple(map(float, config["image_mean"])),
                std=tuple(map(float, config["image_std"])),
            )
        except KeyError as error:
            raise ModelUnavailable(f"{file.name} of {directory.name} lacks {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelUnavailable(f"{file.name} of {directory.name} is damaged: {error}") from None
        if not 0 < preprocessing.crop_px <= preprocessing.resize_px:
            problem = "a crop larger than the resized image"
        if not len(preprocessing.mean) == len(preprocessing.std) == 3 or 0 in preprocessing.std:
            problem = "mean and std of other than three channels"
        if problem:
            raise ModelUnavailable(f"{file.name} of {directory.name} asks for {problem}, which is not supported")
        return preprocessing

    def crop_box(self, width: int, height: int) -> Box:
        """The part of an upright image that becomes the crop, in that image's coordinates.

        Like `transformers`, it rounds the longer edge down after resizing, and the crop's offset down.
        """
        short, long = min(width, height), max(width, height)
        resized_long = int(self.resize_px * long / short)
        resized = (self.resize_px, resized_long) if width <= height else (resized_long, self.resize_px)
        left, right = _centred(self.crop_px, resized[0], width)
        top, bottom = _centred(self.crop_px, resized[1], height)
        return left, top, right, bottom


def _centred(crop_px: int, resized_px: int, source_px: int) -> tuple[float, float]:
    start = (resized_px - crop_px) // 2
    scale = source_px / resized_px
    return start * scale, min((start + crop_px) * scale, source_px)


def _irreproducible(config: dict[str, Any]) -> str | None:
    """The first part of a processor's configuration that `decode` cannot reproduce, or None."""
    off = [step for step in ("resize", "center_crop", "rescale", "normalize") if not config.get(f"do_{step}", True)]
    if off:
        return f"no {off[0]}"
    if config.get("resample", Image.Resampling.BICUBIC) != Image.Resampling.BICUBIC:
        return f"resampling filter {config['resample']}"
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        return f"rescale factor {config['rescale_factor']}"
    if "longest_edge" in config["size"]:
        return "a bound on the longest edge"
    if config["crop_size"]["height"] != config["crop_size"]["width"]:
        return "a crop that is not square"
    return None
