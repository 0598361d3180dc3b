"""Decodes the bytes of an image file into upright RGB pixels, or rejects them with a stable reason.

The bytes alone decide the format; the file's name does not matter. Of an animation or a multi-page file, only the
first frame is used. The pixels equal those of the checkpoint's own processor (e.g. shortest edge to `resize_px`, then
centre crop), but one resample computes only the crop, which is cheaper and safe for images of 1x20000 pixels. About
one value in some thousand differs by a grey level, because Pillow stores boxes in single precision.

A `RefusedImage` has one of these reasons (`serve_app.sources.files` lists those of files that cannot be read):

    empty               there are no bytes
    too_large           there are more bytes than `ImageLimits.max_bytes`
    unidentified        the bytes are not an image of a known format
    format_not_allowed  the image has a format, or as a TIFF a kind of pixels, that this service does not decode
    too_many_pixels     there are more pixels, or a longer side, than `ImageLimits` allows; found before decoding
    too_much_memory     decoding would take more than `ImageLimits.max_memory_bytes`; found before decoding
    too_much_work       decoding would take too long, or the file is in too many pieces; found before decoding
    truncated           the file ends before its image ends
    corrupt             the image data or the data around it is damaged

Many threads may call these functions at once; Pillow decodes and resamples outside the interpreter lock.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pi_heif
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.images.formats import ALLOWED_FORMATS, signature_of
from serve_app.images.orientation import Turn, turn_of
from serve_app.images.png import without_long_metadata
from serve_app.images.preprocessing import Preprocessing as Preprocessing
from serve_app.images.resampling import resample, resample_unrounded
from serve_app.images.work import CountedFile, TiffLayout, TooManyParts, count_scans, tiff_layout, unsupported_pixels

PREPROCESSING_VERSION = 2
"""A number that grows whenever the same bytes give different pixels; it is part of every `space_key`."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits of one image. Images within them decode in seconds; `serve_app.images.work` explains the limits."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    max_side_px: int = 30_000
    max_memory_bytes: int = 512 * 2**20
    max_scans: int = 100
    """The limit for a JPEG. Ordinary JPEGs have about 10 scans; each may pass over all blocks, 50 Mpx in 20 ms."""
    max_parts: int = 1_000_000
    """The limit for the pieces in which Pillow reads a file, each in 1 to 6 microseconds. Ordinary files have some
    dozens of pieces, and a GIF of 64 MiB has half a million."""
    max_strips: int = 100_000
    """The limit for the strips or tiles of a TIFF; Pillow took 80 s for a million."""


DEFAULT_LIMITS = ImageLimits()

# libtiff decodes a strip of one row as eight or sixteen rows, so a scan of a JPEG in a TIFF costs that much more.
# libtiff counts scans itself, and its default limit is 100. The TIFF specification allows only JPEGs of few scans.
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", "20")

# A replica decodes several images at once. libheif turns the pixels upright, and pi_heif takes the orientation out of
# the EXIF. It refuses pixels of other sides than the header states (tests/unit/images/test_heic.py).
pi_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)

# The peak memory of `decode` in bytes per pixel, measured with 50 Mpx. Pillow decodes WebP into two buffers and lays
# transparency on white in a copy. RGB takes 7, a palette with transparency 8, RGBA 10.5.
_PEAK_BYTES = 10.6
_TILE_BYTES = 8  # bytes per pixel of one TIFF tile, in addition, because TIFFs are decoded tile by tile
_PEAK_BYTES_OF_MODE = {"CMYK": 12.2, "LA": 13.7}
_PEAK_BYTES_OF_FORMAT = {
    **{("WEBP", "RGB"): 16.3, ("WEBP", "RGBA"): 18.7},
    **{("AVIF", "RGBA"): 14.3, ("HEIF", "RGBA"): 14.3},
}

_SPARE_BYTES = 32 * 2**20

MAX_THUMBNAIL_PX = 512
THUMBNAIL_QUALITY = 80


class Header(NamedTuple):
    """The sides of an upright image in pixels, and the name of its format in lower case."""

    width: int
    height: int
    format: str


def header_of(data: bytes) -> Header | None:
    """The header of an image file, which is not decoded; None if it cannot be read."""
    try:
        with _rejecting(data):
            file = CountedFile(without_long_metadata(data), DEFAULT_LIMITS.max_parts)
            return _header(Image.open(file, formats=ALLOWED_FORMATS))
    except RefusedImage:
        return None


def _header(image: Image.Image) -> Header:
    turn = turn_of(image)
    width, height = image.size
    name = {"MPO": "jpeg", None: "bmp"}.get(image.format) or str(image.format).lower()  # a converted BMP has none
    return Header(height, width, name) if turn is not None and turn.swaps_axes else Header(width, height, name)


def decode(data: bytes, preprocessing: Preprocessing, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[Any]:
    """Decode an image file into the (S, S, 3) RGB pixels of `preprocessing.dtype` that the model gets, S = `crop_px`.

    Raises:
        RefusedImage: see the module docstring for the reasons.
    """
    return decode_with_header(data, preprocessing, limits)[0]


def decode_with_header(
    data: bytes, preprocessing: Preprocessing, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[NDArray[Any], Header]:
    """The pixels of an image file, as `decode` returns them, and its header.

    The EXIF orientation is applied to the small result, which is as exact and cheaper. Transparency becomes white.

    Raises:
        RefusedImage: see the module docstring for the reasons.
    """
    with _rejecting(data):
        image = _load(data, limits)
        header = _header(image)
        turn = turn_of(image)
        width, height = image.size
        swaps_axes = turn is not None and turn.swaps_axes
        box = preprocessing.crop_box(header.width, header.height)
        if turn is not None:
            box = turn.stored_box(box, width, height)
        crop = preprocessing.crop_px, preprocessing.crop_px
        if not preprocessing.rounds:
            bands = resample_unrounded(image, crop, box, vertical_first=swaps_axes, how=preprocessing.filter)
            return np.stack([np.asarray(_turned(band, turn)) for band in bands], axis=-1), header
        square = resample(image, crop, box, vertical_first=swaps_axes, how=preprocessing.filter)
        return np.asarray(_turned(square, turn).convert("RGB")), header


def _turned(image: Image.Image, turn: Turn | None) -> Image.Image:
    return image if turn is None else image.transpose(turn.transpose)


def thumbnail(data: bytes, size_px: int, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """An upright JPEG of the whole image, within `size_px` x `size_px` and never larger than the image.

    It has none of the original's metadata. The format is JPEG because JPEG encodes several times faster than WebP,
    and transparency, which JPEG cannot hold, becomes white.

    Raises:
        InvalidRequest: `size_px` is not within 1 and `MAX_THUMBNAIL_PX`.
        RefusedImage: see the module docstring for the reasons.
    """
    if not 1 <= size_px <= MAX_THUMBNAIL_PX:
        raise InvalidRequest(f"thumbnail size must be within 1 and {MAX_THUMBNAIL_PX} pixels, not {size_px}")
    with _rejecting(data):
        image = _load(data, limits, at_least_px=2 * size_px)
        scale = min(1.0, size_px / max(image.size))
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = resample(image, (width, height), (0, 0, image.width, image.height))
        if (turn := turn_of(image)) is not None:
            small = small.transpose(turn.transpose)
        small.info.clear()  # otherwise Pillow would write the original's comment
        jpeg = io.BytesIO()
        small.save(jpeg, "JPEG", quality=THUMBNAIL_QUALITY)
        return jpeg.getvalue()


def _load(data: bytes, limits: ImageLimits = DEFAULT_LIMITS, *, at_least_px: int | None = None) -> Image.Image:
    """Open an image file, check it against the limits and decode its first frame; call this inside `_rejecting`.

    With `at_least_px`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if its sides stay at least that long.

    Raises:
        RefusedImage: there are no bytes, or the image is over a limit; limits are checked before decoding.
    """
    if not data:
        raise RefusedImage("empty: the file has no content")
    if len(data) > limits.max_bytes:
        raise RefusedImage(f"too_large: {len(data)} bytes, at most {limits.max_bytes} are read")
    layout = tiff_layout(data)
    if layout is not None and layout.parts > limits.max_strips:
        raise RefusedImage(f"too_much_work: {layout.parts} strips, at most {limits.max_strips} are decoded")
    image = Image.open(CountedFile(without_long_metadata(data), limits.max_parts), formats=ALLOWED_FORMATS)
    width, height = image.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side_px:
        raise RefusedImage(
            f"too_many_pixels: {width}x{height}, at most {limits.max_pixels} pixels "
            f"and {limits.max_side_px} along a side are decoded"
        )
    if at_least_px is not None:
        image.draft(None, (at_least_px, at_least_px))
    needed_bytes = image.width * image.height * _peak_bytes(image)
    if layout is not None:
        needed_bytes += layout.tile_px(width, height) * _TILE_BYTES
    if needed_bytes > limits.max_memory_bytes:
        raise RefusedImage(
            f"too_much_memory: {width}x{height} as {image.format} {image.mode} takes {needed_bytes / 2**20:.0f} MiB "
            f"to decode, at most {limits.max_memory_bytes // 2**20} are spent; save it smaller or in another format"
        )
    _hold_to_time(data, image, layout, limits)
    image.load()
    return image.convert("RGB") if image.format == "BMP" and _is_transparent_throughout(image) else image


def _is_transparent_throughout(image: Image.Image) -> bool:
    """Whether every pixel is invisible; in a BMP that means that its writer left the fourth byte empty."""
    return image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0)


def _hold_to_time(data: bytes, image: Image.Image, layout: TiffLayout | None, limits: ImageLimits) -> None:
    """Reject an opened image that would take longer to decode than its number of pixels suggests."""
    if layout is not None and (pixels := layout.decoded_px(*image.size)) > 2 * limits.max_pixels:
        raise RefusedImage(f"too_much_work: tiles of {pixels} pixels, at most {2 * limits.max_pixels} are decoded")
    is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and count_scans(data, limits.max_scans, limits.max_parts) > limits.max_scans:
        raise RefusedImage(
            f"too_much_work: more than {limits.max_scans} scans, which are not decoded; save it with fewer"
        )


def _peak_bytes(image: Image.Image) -> float:
    """The peak memory for decoding an opened image, in bytes per pixel."""
    of_mode = _PEAK_BYTES_OF_MODE.get(image.mode, _PEAK_BYTES)
    return _PEAK_BYTES_OF_FORMAT.get((image.format or "", image.mode), of_mode)


@contextmanager
def _rejecting(data: bytes) -> Iterator[None]:
    """Turn any error that Pillow raises for a bad file into a `RefusedImage`; nobody has a list of these errors."""
    try:
        yield
    except (RefusedImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedImage(f"too_many_pixels: {error}") from None
    except TooManyParts as error:
        raise RefusedImage(f"too_much_work: {error}") from None
    except UnidentifiedImageError:
        raise _unopened(data) from None
    except Exception as error:
        _require_memory(error)
        raise RefusedImage(f"{_damage(error, data)}: {str(error) or type(error).__name__}") from None


def _require_memory(error: Exception) -> None:
    """Raise `MemoryError` if a decoder failed while memory was short; decoders report that as damage of the file."""
    try:
        np.empty(_SPARE_BYTES, np.uint8)
    except MemoryError:
        raise MemoryError(str(error)) from None


def _damage(error: Exception, data: bytes) -> str:
    if isinstance(error, RuntimeError) and "unsupported" in str(error).lower():
        return "format_not_allowed"  # a HEIF container of another codec
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "truncated"
    riff_bytes = int.from_bytes(data[4:8], "little") + 8
    return "truncated" if data[:4] == b"RIFF" and len(data) < riff_bytes else "corrupt"


def sniff_content_type(data: bytes) -> str:
    """The media type of an image file by its first 64 bytes, for serving the file unchanged.

    Raises:
        RefusedImage: `unidentified` or `format_not_allowed`.
    """
    signature = signature_of(data)
    if signature is None or signature.content_type is None:
        raise _unopened(data)
    return signature.content_type


def _unopened(data: bytes) -> RefusedImage:
    """The `RefusedImage` for a file that Pillow could not open."""
    signature = signature_of(data)
    if signature is None:
        return RefusedImage("unidentified: not an image of a known format")
    if signature.content_type is None:
        return RefusedImage(f"format_not_allowed: {signature.name}; accepted are {', '.join(ALLOWED_FORMATS)}")
    if (pixels := unsupported_pixels(data)) is not None:
        return RefusedImage(f"format_not_allowed: a TIFF with this kind of pixels is not supported: {pixels}")
    return RefusedImage(f"corrupt: begins like {signature.name}, but its header is damaged or cut off")
