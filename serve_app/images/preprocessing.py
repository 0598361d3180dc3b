"""The geometry and normalisation that a checkpoint was trained with, and the part of an image that becomes its crop."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from serve_app.errors import ModelUnavailable
from serve_app.images.resampling import Box, Filter

Fit = Literal["shortest_edge", "square"]
"""What a resize keeps: the aspect ratio, before a centre crop; or nothing, when the whole image becomes a square."""

PROCESSOR_FILE = "preprocessor_config.json"
MAX_FILE_BYTES = 1 << 20
FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters that `decode` has."""

_CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_SQUARE = {"size": {"height": 224, "width": 224}, "do_center_crop": False}
_CROP = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
PROCESSORS: dict[str, dict[str, Any]] = {
    "BitImageProcessor": {**_CROP, **_CLIP, "resample": 3},
    "CLIPImageProcessor": {**_CROP, **_CLIP, "resample": 3},
    "SiglipImageProcessor": {**_SQUARE, **_HALF, "resample": 3},
    "ViTImageProcessor": {**_SQUARE, **_HALF, "resample": 2},
    "DINOv3ViTImageProcessor": {**_SQUARE, **_IMAGENET, "resample": 2},
}
"""The processors of transformers that are reproduced, with the values that they have where a file names none."""
UNNAMED = {"vit": "ViTImageProcessor", "clip": "CLIPImageProcessor", "siglip": "SiglipImageProcessor"}
"""The class that transformers takes for a model type where a file names none, as files of its first releases do."""
UNROUNDED = frozenset({"DINOv3ViTImageProcessor"})
"""The processors that scale tensors of real numbers, and not 8-bit images."""
DINOV2: dict[str, Any] = {
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    **_IMAGENET,
}
"""DINOv2's published values."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The geometry and normalisation of a checkpoint; the defaults are DINOv2's published values.

    `mean` and `std` are per RGB channel, for values in [0, 1]. Where `fit` is "square", `resize_px` is `crop_px`.
    `rounds` says whether resized pixels are whole grey levels, as Pillow's are; otherwise they are float32.
    """

    resize_px: int = 256
    crop_px: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    fit: Fit = "shortest_edge"
    filter: Filter = "bicubic"
    rounds: bool = True

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The type of the pixels, in [0, 255]: uint8, or float32 if they are not rounded."""
        return np.dtype(np.uint8 if self.rounds else np.float32)

    @classmethod
    def from_checkpoint(
        cls, directory: Path, *, without_file: Mapping[str, Any] | None = DINOV2, model_type: str = "dinov2"
    ) -> "Preprocessing":
        """Read `preprocessor_config.json`, or the same part of `processor_config.json`.

        Args:
            directory: the checkpoint.
            without_file: the configuration of a checkpoint without either file; None refuses it.
            model_type: the network's; it stands for the processor's class where the file names none.

        Raises:
            ModelUnavailable: the file is missing or damaged, or asks for anything but a bicubic or bilinear resize of
                the shortest edge with a square centre crop within it, or of the whole image to a square, and
                normalisation.
        """
        where = f"{PROCESSOR_FILE} of {directory.name}"
        try:
            config = _read(directory)
            if config is None and without_file is not None:
                config = dict(without_file)
            if config is None:
                raise ModelUnavailable(f"{directory.name} has no {PROCESSOR_FILE}, so its pixels are not known")
            config = _with_defaults(_named(config, model_type))
            problem = _irreproducible(config)
            preprocessing = cls._of(config) if problem is None else cls()
        except KeyError as error:
            raise ModelUnavailable(f"{where} lacks {error}") from None
        except OSError as error:
            raise ModelUnavailable(f"{where} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelUnavailable(f"{where} is damaged: {error}") from None
        if not 0 < preprocessing.crop_px <= preprocessing.resize_px:
            problem = "a crop larger than the resized image"
        if not len(preprocessing.mean) == len(preprocessing.std) == 3 or 0 in preprocessing.std:
            problem = "mean and std of other than three channels"
        if problem:
            raise ModelUnavailable(f"{where} asks for {problem}, which is not supported")
        return preprocessing

    @classmethod
    def _of(cls, config: dict[str, Any]) -> "Preprocessing":
        """The geometry of a configuration that `_irreproducible` has passed."""
        fit: Fit = "shortest_edge" if "shortest_edge" in config["size"] else "square"
        side_px = int(config["crop_size"]["height"] if fit == "shortest_edge" else config["size"]["height"])
        return cls(
            resize_px=int(config["size"]["shortest_edge"]) if fit == "shortest_edge" else side_px,
            crop_px=side_px,
            mean=tuple(map(float, config["image_mean"])),
            std=tuple(map(float, config["image_std"])),
            fit=fit,
            filter=FILTERS[config.get("resample", 3)],
            rounds=_class_of(config) not in UNROUNDED,
        )

    def crop_box(self, width: int, height: int) -> Box:
        """The part of an upright image that becomes the crop, in that image's coordinates.

        Like `transformers`, it rounds the longer edge down after resizing, and the crop's offset down.
        """
        if self.fit == "square":
            return 0, 0, width, height
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


def _read(directory: Path) -> dict[str, Any] | None:
    """The configuration of a checkpoint's image processor, or None if it has none."""
    for name, part in ((PROCESSOR_FILE, None), ("processor_config.json", "image_processor")):
        file = directory / name
        if file.is_file():
            content = json.loads(_start_of(file))
            if part is None or part in content:
                config: dict[str, Any] = content if part is None else content[part]
                return {**config}
    return None


def _start_of(file: Path) -> bytes:
    """The content of a small file, which clients choose by naming a folder. Raises `ValueError`: it is not small."""
    with file.open("rb") as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError("it is larger than a MiB")
    return content


def _named(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """The configuration with the name of its class, but of DINOv2, whose files have never left a value to a default.

    Raises:
        ModelUnavailable: the class cannot be known, and with it not the values that the file leaves out.
    """
    if _class_of(config) is not None or model_type.startswith("dinov2"):
        return config
    if model_type not in UNNAMED:
        raise ModelUnavailable(f"{PROCESSOR_FILE} names no class (image_processor_type), so its pixels are not known")
    return {**config, "image_processor_type": UNNAMED[model_type]}


def _with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what its processor's class adds; old files have whole numbers as sizes."""
    defaults = PROCESSORS.get(_class_of(config) or "", {})
    config = {**defaults, **config}
    if isinstance(config.get("size"), int):
        keeps_shape = "shortest_edge" in defaults.get("size", {"shortest_edge": 0})
        edges = ("shortest_edge",) if keeps_shape else ("height", "width")
        config["size"] = dict.fromkeys(edges, config["size"])
    if isinstance(config.get("crop_size"), int):
        config["crop_size"] = dict.fromkeys(("height", "width"), config["crop_size"])
    return config


def _class_of(config: dict[str, Any]) -> str | None:
    """The name of the processor's class without its engine, or None where the file has no name."""
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    return name and str(name).removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")


def _irreproducible(config: dict[str, Any]) -> str | None:
    """The first part of a processor's configuration that `decode` cannot reproduce, or None."""
    name, size = _class_of(config), config["size"]
    if name is not None and name not in PROCESSORS:
        return f"the processor {name}; supported are {', '.join(PROCESSORS)}"
    off = [step for step in ("resize", "rescale", "normalize") if not config.get(f"do_{step}", True)]
    if off:
        return f"no {off[0]}"
    if config.get("do_pad"):
        return "padding"
    if config.get("resample", 3) not in FILTERS:
        return f"resampling filter {config['resample']}"
    if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        return f"rescale factor {config['rescale_factor']}"
    if "longest_edge" in size:
        return "a bound on the longest edge"
    crops = config.get("do_center_crop", True)
    if "shortest_edge" in size:
        return _irreproducible_crop(config["crop_size"]) if crops else "no center_crop"
    if crops:
        return "a centre crop without a shortest_edge"
    return None if size["height"] == size["width"] else "a resize that is not square"


def _irreproducible_crop(crop: dict[str, Any]) -> str | None:
    return None if crop["height"] == crop["width"] else "a crop that is not square"
