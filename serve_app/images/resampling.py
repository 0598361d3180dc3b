"""A part of a decoded image, of whatever Pillow mode, scaled to opaque 8-bit pixels in one bicubic resample.

Each mode is handled so that the result is that of the same image converted to 8-bit RGB first:

    L, RGB                      as they are; L stays L
    1, P, CMYK, YCbCr, LAB, …   converted by Pillow, only where the filter looks
    with transparency           laid on white
    I;16 and its byte orders    divided by 257 (Pillow's own conversion would clip to white)
    I, F                        stretched from the image's lowest to its highest value, since neither has a
                                fixed range; a flat image turns black
"""

import math

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels, fractions allowed."""

SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
UNBOUNDED = ("I", "F")
BICUBIC_REACH = 2.0
"""Bicubic looks at this many output pixels to either side."""


def resample(image: Image.Image, size: tuple[int, int], box: Box, *, vertical_first: bool = False) -> Image.Image:
    """Scale the part of `image` inside `box` to `size` (width, height).

    Args:
        image: loaded; not changed.
        size: of the result, in pixels.
        box: within the image.
        vertical_first: scale the columns before the rows. Values are rounded and clipped between the two
            passes, so the order shows at hard edges, by up to 30 grey levels.

    Returns:
        Mode L or RGB.

    Raises:
        ValueError: the pixels hold infinities or NaN.
    """
    left, top, right, bottom = seen = _seen(image, size, box)
    part = image.crop(seen)
    box = box[0] - left, box[1] - top, min(box[2], right) - left, min(box[3], bottom) - top
    if image.mode in SIXTEEN_BIT:
        part = Image.fromarray(np.asarray(part, dtype="<u2"))  # Pillow 13 garbles other byte orders when it scales
        values = np.asarray(_two_passes(part, size, box, vertical_first))
        return Image.fromarray(((values + np.uint32(128)) // 257).astype(np.uint8))
    if image.mode in UNBOUNDED:
        low, high = image.getextrema()
        return _stretch(_two_passes(part, size, box, vertical_first), low, high)  # type: ignore[arg-type]
    return _two_passes(_opaque(part), size, box, vertical_first)


def _seen(image: Image.Image, size: tuple[int, int], box: Box) -> tuple[int, int, int, int]:
    """The whole pixels that the filter reads: the box and the reach around it."""
    reach_x = BICUBIC_REACH * max(1.0, (box[2] - box[0]) / size[0]) + 1
    reach_y = BICUBIC_REACH * max(1.0, (box[3] - box[1]) / size[1]) + 1
    return (
        max(0, math.floor(box[0] - reach_x)),
        max(0, math.floor(box[1] - reach_y)),
        min(image.width, math.ceil(box[2] + reach_x)),
        min(image.height, math.ceil(box[3] + reach_y)),
    )


def _two_passes(image: Image.Image, size: tuple[int, int], box: Box, vertical_first: bool) -> Image.Image:
    """`image.resize(size, BICUBIC, box)` in a fixed order.

    In one call Pillow 13 would choose the order, by the shape of the whole image (python-pillow/Pillow#9549).
    """
    width, height = size
    left, top, right, bottom = box
    if vertical_first:
        image = image.resize((image.width, height), Image.Resampling.BICUBIC, (0, top, image.width, bottom))
        return image.resize(size, Image.Resampling.BICUBIC, (left, 0, right, height))
    image = image.resize((width, image.height), Image.Resampling.BICUBIC, (left, 0, right, image.height))
    return image.resize(size, Image.Resampling.BICUBIC, (0, top, width, bottom))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
    layer = image if image.mode == "RGBA" else image.convert("RGBA")  # converting to itself would copy
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def _stretch(image: Image.Image, low: float, high: float) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    if not (math.isfinite(low) and math.isfinite(high) and np.isfinite(values).all()):
        raise ValueError("its pixels hold infinities or NaN")
    levels = (values - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(levels.clip(0, 255)).astype(np.uint8))
