"""Finds out how much work an image file is for its decoder, before it is decoded.

The number of pixels bounds the decoding time only if each pixel is made once and the file consists of few pieces. A
small file can ask for much more. Measured examples are a JPEG with thousands of scans over all its blocks (0.4 MB,
31 s), a TIFF with tiles far larger than the image (3 MB, 780 MiB of memory) or with a million strips (4 MB, 80 s), and
millions of pieces in any format, for which Pillow loops in Python (64 MiB of fill bytes in a JPEG, 43 s).
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""A JPEG marker as libjpeg finds it: after fill bytes, no stuffed byte, and no restart, which occurs within a scan."""

_END, _SCAN = 0xD9, 0xDA
_WITH_LENGTH = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE))

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Struct formats of the numbers that libtiff accepts as a size, by the type of the field."""

_TIFF_BEGINS = (b"II*\0", b"II\0*", b"II+\0", b"MM\0*", b"MM*\0", b"MM\0+")
"""The beginnings that Pillow accepts, including two wrong ones; those with a plus are BigTIFF."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323
_OFFSETS = frozenset((273, 324))


class TooManyParts(Exception):
    """A file consists of more pieces than allowed; the message states the limit."""


class CountedFile(io.BytesIO):
    """The bytes of a file; `read` may be called `max_parts` times."""

    def __init__(self, data: bytes, max_parts: int) -> None:
        super().__init__(data)
        self._max_parts = max_parts
        self._parts_left = max_parts

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file.

        Raises:
            TooManyParts: `read` was called too often.
        """
        self._parts_left -= 1
        if self._parts_left < 0:
            raise TooManyParts(f"it consists of more than {self._max_parts} parts")
        return super().read(size)


def count_scans(jpeg: bytes, max_scans: int, max_parts: int) -> int:
    """Count the scans of a JPEG up to its end, at most `max_scans + 1`.

    Scans of a thumbnail in the metadata, and of images after the end, do not count.

    Raises:
        TooManyParts: the JPEG has more than `max_parts` segments.
    """
    scans = parts = position = 0
    while scans <= max_scans and (marker := _MARKER.search(jpeg, position)):
        parts += 1
        if parts > max_parts:
            raise TooManyParts(f"it consists of more than {max_parts} segments")
        kind = marker[1][0]
        if kind == _END:
            break
        scans += kind == _SCAN
        position = marker.end()
        if kind in _WITH_LENGTH:
            position += int.from_bytes(jpeg[position : position + 2], "big")
    return scans


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """The layout of the first image in a TIFF file; tile sides are in pixels, and None if the image has strips."""

    parts: int
    tile_width: int | None
    tile_length: int | None

    def tile_px(self, width: int, height: int) -> int:
        """The pixels of one tile, or 0 if the image has strips; a missing side of the tile is the image's side."""
        if self.tile_width is None and self.tile_length is None:
            return 0
        return (self.tile_width or width) * (self.tile_length or height)

    def decoded_px(self, width: int, height: int) -> int:
        """The pixels that are decoded for an image: its own, and those of tiles beyond its edges."""
        if not self.tile_px(width, height):
            return width * height
        across, down = self.tile_width or width, self.tile_length or height
        return -(-width // across) * across * -(-height // down) * down


def tiff_layout(data: bytes) -> TiffLayout | None:
    """Read the first directory of a TIFF; None for other files. If a field is repeated, its largest value counts.

    Raises:
        EOFError: the file ends before its directory ends.
        ValueError: the file is a BigTIFF in the byte order that Pillow misreads.
    """
    if not data.startswith(_TIFF_BEGINS):
        return None
    if data.startswith(b"MM\0+"):
        raise ValueError("a big-endian BigTIFF cannot be read")
    order, is_big = (">" if data.startswith(b"MM") else "<"), data[2:3] == b"+"
    parts, sides = 0, dict[int, int]()
    try:
        for tag, kind, count, value in _tiff_fields(data, order, is_big):
            if tag in _OFFSETS:
                parts = max(parts, count)
            if tag in (_TILE_WIDTH, _TILE_LENGTH):
                sides[tag] = max(sides.get(tag, 0), _number(data, order, kind, value))
    except struct.error:
        raise EOFError("the file ends before its directory does") from None
    return TiffLayout(parts, sides.get(_TILE_WIDTH), sides.get(_TILE_LENGTH))


def unsupported_pixels(data: bytes) -> str | None:
    """The kind of pixels of a TIFF with a sound directory, which Pillow could not open; None for any other file."""
    try:
        if tiff_layout(data) is None:
            return None
        order, is_big = (">" if data.startswith(b"MM") else "<"), data[2:3] == b"+"
        fields = _tiff_fields(data, order, is_big)
        found = {tag: _number(data, order, kind, value, count) for tag, kind, count, value in fields}
    except (struct.error, EOFError, ValueError):
        return None
    if not (found.get(256) and found.get(257)):
        return None
    kinds = {1: "unsigned integers", 2: "signed integers", 3: "floats"}
    return f"{found.get(277, 1)} band(s) of {found.get(258, 1)}-bit {kinds.get(found.get(339, 1), 'values')}"


def _tiff_fields(data: bytes, order: str, is_big: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """The fields as tag, type, number of values, and the value or its place."""
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (fields,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    start += 8 if is_big else 2
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
    for index in range(fields):
        yield entry.unpack_from(data, start + index * entry.size)


def _number(data: bytes, order: str, kind: int, value: bytes, count: int = 1) -> int:
    """The first value of a field, read from its place if it is stored elsewhere; 0 if its type cannot be a size."""
    if kind not in _TIFF_TYPES:
        return 0
    form = order + _TIFF_TYPES[kind]
    place = 0
    if struct.calcsize(form) * count > len(value):
        value, place = data, *struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)
    return int(struct.unpack_from(form, value, place)[0])
