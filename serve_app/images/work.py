"""How much work a file would give its decoder, found before it is decoded.

Pixels bound the time of a decoder only where each is made once, from a file taken apart in a few pieces. What else a
small file may ask for, with measured examples: a JPEG thousands of scans over all its blocks (0.4 MB, 31 s), a TIFF
tiles far larger than the image (3 MB, 780 MiB of memory) or a million strips (4 MB, 80 s), and any format millions of
pieces, for which Pillow loops in Python (64 MiB of fill bytes in a JPEG, 43 s).
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""Of a JPEG, as libjpeg finds them: fill bytes before, no stuffed bytes, and no restarts, which occur within a scan."""

_END, _SCAN = 0xD9, 0xDA
_WITH_LENGTH = frozenset((*range(0xC0, 0xD0), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE))

_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""The numbers that libtiff takes for a size, by the type of the field."""

_TIFF_BEGINS = (b"II*\0", b"II\0*", b"II+\0", b"MM\0*", b"MM*\0", b"MM\0+")
"""As Pillow takes them, two that are wrong among them; the ones with a plus are BigTIFF."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323
_OFFSETS = frozenset((273, 324))


class TooManyParts(Exception):
    """A file is taken apart in more pieces than it may be; the message says how many that is."""


class CountedFile(io.BytesIO):
    """The bytes of a file, which may be read `max_parts` times."""

    def __init__(self, data: bytes, max_parts: int) -> None:
        super().__init__(data)
        self._max_parts = max_parts
        self._parts_left = max_parts

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file.

        Raises:
            TooManyParts: it was read too often.
        """
        self._parts_left -= 1
        if self._parts_left < 0:
            raise TooManyParts(f"it consists of more than {self._max_parts} parts")
        return super().read(size)


def count_scans(jpeg: bytes, max_scans: int, max_parts: int) -> int:
    """Scans of a JPEG up to its end; stops at `max_scans + 1`.

    Scans of a thumbnail in its metadata, and of images behind its end, are not its own.

    Raises:
        TooManyParts: it has more than `max_parts` segments.
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
    """How the first image of a TIFF lies in its file; tile sides in pixels, None where there are strips."""

    parts: int
    tile_width: int | None
    tile_length: int | None

    def tile_px(self, width: int, height: int) -> int:
        """Pixels of one tile of an image, 0 where there are strips; a side that is not given is the image's."""
        if self.tile_width is None and self.tile_length is None:
            return 0
        return (self.tile_width or width) * (self.tile_length or height)

    def decoded_px(self, width: int, height: int) -> int:
        """Pixels that are decoded for an image: its own, and what its tiles hang over its edges."""
        if not self.tile_px(width, height):
            return width * height
        across, down = self.tile_width or width, self.tile_length or height
        return -(-width // across) * across * -(-height // down) * down


def tiff_layout(data: bytes) -> TiffLayout | None:
    """Read the first directory of a TIFF, where of a repeated field the largest value counts; None for other files.

    Raises:
        EOFError: the file ends before its directory does.
        ValueError: a BigTIFF of a byte order in which Pillow misreads it.
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


def _tiff_fields(data: bytes, order: str, is_big: bool) -> Iterator[tuple[int, int, int, bytes]]:
    """Tag, type, number of values, and the value or its place."""
    (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    (fields,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    start += 8 if is_big else 2
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHI4s"))
    for index in range(fields):
        yield entry.unpack_from(data, start + index * entry.size)


def _number(data: bytes, order: str, kind: int, value: bytes) -> int:
    """The first value of a field, which lies elsewhere when it does not fit; 0 for what is no size."""
    if kind not in _TIFF_TYPES:
        return 0
    form = order + _TIFF_TYPES[kind]
    place = 0
    if struct.calcsize(form) > len(value):
        value, place = data, *struct.unpack(order + "I", value)
    return int(struct.unpack_from(form, value, place)[0])
