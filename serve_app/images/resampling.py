"""Scales a part of a decoded image, of any Pillow mode, to opaque 8-bit pixels in one resample.

The result equals that of an image converted to 8-bit RGB first. Each mode is treated as follows:

    L, RGB                      stay as they are
    1, P, CMYK, YCbCr, LAB, …   are converted by Pillow, but only where the filter reads
    with transparency           are laid on white
    I;16 and its byte orders    are divided by 257 (Pillow's own conversion would clip to white)
    I, F                        are stretched from the image's lowest to its highest value, because they have
                                no fixed range; a flat image becomes black, and pixels without a
                                measurement get the mean of the others (`nodata`)
    BMP whose alpha is all zero is opaque: programs leave the fourth byte empty
"""

import math
from typing import Literal

import numpy as np
from PIL import Image

from serve_app.images.nodata import without_nodata

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels; fractions are allowed."""

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
UNBOUNDED = ("I", "F")
Filter = Literal["bicubic", "bilinear"]
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
REACH: dict[Filter, float] = {"bicubic": 2.0, "bilinear": 1.0}
"""A filter reads this many output pixels to either side."""


def resample(
    image: Image.Image,
    size: tuple[int, int],
    box: Box,
    *,
    vertical_first: bool = False,
    how: Filter = "bicubic",
) -> Image.Image:
    """Scale the part of `image` inside `box` to `size` (width, height).

    Args:
        image: a loaded image; it is not changed.
        size: the size of the result in pixels.
        box: the part to scale, within the image.
        vertical_first: scale the columns before the rows. Values are rounded and clipped between the two
            passes, so at hard edges the order changes the result by up to 30 grey levels.
        how: the filter.

    Returns:
        An image of mode L or RGB.

    Raises:
        ValueError: the pixels hold infinities or NaN.
    """
    if image.mode in UNBOUNDED:
        image = without_nodata(image)
    left, top, right, bottom = seen = _seen(image, size, box, REACH[how])
    part = image.crop(seen)
    box = box[0] - left, box[1] - top, min(box[2], right) - left, min(box[3], bottom) - top
    if image.mode in SIXTEEN_BIT:
        part = Image.fromarray(np.asarray(part, dtype="<u2"))  # Pillow 13 garbles other byte orders when it scales
        values = np.asarray(_two_passes(part, size, box, vertical_first, how))
        return Image.fromarray(((values + np.uint32(128)) // 257).astype(np.uint8))
    if image.mode in UNBOUNDED:
        low, high = image.getextrema()
        return _stretch(_two_passes(part, size, box, vertical_first, how), low, high)  # type: ignore[arg-type]
    return _two_passes(_opaque(part), size, box, vertical_first, how)


def resample_unrounded(
    image: Image.Image, size: tuple[int, int], box: Box, *, vertical_first: bool = False, how: Filter = "bilinear"
) -> list[Image.Image]:
    """Do as `resample`, but keep the fractions of grey levels: three images of mode F, for red, green and blue."""
    if image.mode in UNBOUNDED:
        image = without_nodata(image)
    left, top, right, bottom = seen = _seen(image, size, box, REACH[how])
    part = _eight_bit(image.crop(seen), image)
    box = box[0] - left, box[1] - top, min(box[2], right) - left, min(box[3], bottom) - top
    return [_two_passes(band.convert("F"), size, box, vertical_first, how) for band in part.convert("RGB").split()]


def _eight_bit(part: Image.Image, whole: Image.Image) -> Image.Image:
    """The part of an image as opaque 8-bit pixels, in mode L or RGB."""
    if part.mode in SIXTEEN_BIT:
        values = np.asarray(part, dtype="<u2")
        return Image.fromarray(((values + np.uint32(128)) // 257).astype(np.uint8))
    if part.mode in UNBOUNDED:
        low, high = whole.getextrema()
        return _stretch(part, low, high)  # type: ignore[arg-type]
    return _opaque(part)


def _seen(image: Image.Image, size: tuple[int, int], box: Box, reach: float) -> tuple[int, int, int, int]:
    """The whole pixels that the filter reads: the box and the filter's reach around it."""
    reach_x = reach * max(1.0, (box[2] - box[0]) / size[0]) + 1
    reach_y = reach * max(1.0, (box[3] - box[1]) / size[1]) + 1
    return (
        max(0, math.floor(box[0] - reach_x)),
        max(0, math.floor(box[1] - reach_y)),
        min(image.width, math.ceil(box[2] + reach_x)),
        min(image.height, math.ceil(box[3] + reach_y)),
    )


def _two_passes(image: Image.Image, size: tuple[int, int], box: Box, vertical_first: bool, how: Filter) -> Image.Image:
    """Do `image.resize(size, FILTER, box)` with a fixed order of the two passes.

    In a single call, Pillow 13 chooses the order by the shape of the whole image (python-pillow/Pillow#9549).
    """
    width, height = size
    kernel = _FILTERS[how]
    left, top, right, bottom = box
    if vertical_first:
        image = image.resize((image.width, height), kernel, (0, top, image.width, bottom))
        return image.resize(size, kernel, (left, 0, right, height))
    image = image.resize((width, image.height), kernel, (left, 0, right, image.height))
    return image.resize(size, kernel, (0, top, width, bottom))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")  # converting RGBA to RGBA would copy
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def _stretch(image: Image.Image, low: float, high: float) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if not (math.isfinite(low) and math.isfinite(high) and np.isfinite(values).all()):
        raise ValueError("its pixels hold infinities or NaN")
    levels = (values - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))
