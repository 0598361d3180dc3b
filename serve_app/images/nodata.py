"""Finds pixels of a float or integer raster that stand for "no measurement here", and gives them an ordinary value.

One such pixel, -9999 among heights of some hundred metres, would otherwise take the whole range of greys. GeoTIFFs
name the value in a tag; where none does, an extreme value counts if it is one that programs use and if it lies further
from all other values than these lie from each other.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GDAL_NODATA = 42113
_USUAL = frozenset(
    float(np.float32(value)) for value in (-9999, -99999, -32768, -32767, -999, -1e20, 1e20, -1e30, 1e30, -(2.0**31))
)
_MOST = 1e38


def without_nodata(image: Image.Image) -> Image.Image:
    """An image of mode I or F with the mean of all other pixels in the place of those without a measurement.

    An image without such pixels, or with no others, is returned as it is.
    """
    low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
    named = _named(image)
    candidates = [value for value in (low, high) if value in _USUAL or _MOST <= abs(value) < math.inf]
    if named is None and not candidates:
        return image
    values = np.asarray(image, dtype=np.float64)
    missing = np.zeros(values.shape, dtype=bool)
    if named is not None:
        missing |= np.isnan(values) if math.isnan(named) else values == np.float64(np.float32(named))
    for value in candidates:
        if _is_far(values, value, missing):
            missing |= values == value
    if not missing.any() or missing.all():
        return image
    return _filled(values, missing, image.mode)


def _named(image: Image.Image) -> float | None:
    """The value that the file's own tag names."""
    tags = getattr(image, "tag_v2", None)
    try:
        return float(str(tags[GDAL_NODATA]).strip("\0 ")) if tags is not None and GDAL_NODATA in tags else None
    except ValueError:
        return None


def _is_far(values: NDArray[np.float64], value: float, missing: NDArray[np.bool_]) -> bool:
    """Whether a value lies further from all others than these lie from each other."""
    others = values[(values != value) & ~missing & np.isfinite(values) & (np.abs(values) < _MOST)]
    if not others.size or others.min() == others.max():
        return False
    return float(np.abs(others - value).min()) > float(others.max() - others.min())


def _filled(values: NDArray[np.float64], missing: NDArray[np.bool_], mode: str) -> Image.Image:
    filled = np.where(missing, values[~missing].mean(), values)
    return Image.fromarray(np.rint(filled).astype(np.int32) if mode == "I" else filled.astype(np.float32))
