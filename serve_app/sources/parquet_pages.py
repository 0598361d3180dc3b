"""The headers of a Parquet column's pages: how many values and bytes decoding makes, told before anything is decoded.

A footer states sizes too, but pyarrow does not hold the pages to them. (format: github.com/apache/parquet-format; the
headers are structs of Thrift's compact protocol.)
"""

import io
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import pyarrow.parquet as pq

from serve_app.errors import InvalidRequest

HEADER_BYTES = (1 << 14, 1 << 20, 1 << 24)
MAX_NESTING = 16
MAX_PAGES = 1_000_000
FREE_BYTES = 64 << 20
MAX_RATIO = 200

Struct = dict[int, Any]

_UNCOMPRESSED, _COMPRESSED, _PAGE, _DICTIONARY, _PAGE_V2 = 2, 3, 5, 7, 8
_N_VALUES = 1
_ENCODING = {_PAGE: 2, _PAGE_V2: 4}
_DIFFERENCES = frozenset({6, 7})
"""The encodings DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY. In the latter a text can repeat all of the one before."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_INDEX_WIDTH = 4


class Page(NamedTuple):
    """What a page's header states; the sizes are in bytes, and the compressed one is without the header."""

    n_values: int
    uncompressed_bytes: int
    compressed_bytes: int
    encoding: int


class Weight(NamedTuple):
    """What decoding a column chunk takes.

    `decoded_bytes` counts texts without their repetitions. `widest_bytes` is 0 if the texts can be read as a
    dictionary, which keeps it so. If they cannot, because they are encoded as differences, no text is longer than it.
    """

    decoded_bytes: int
    allowed_bytes: int
    widest_bytes: int

    def rows_at_once(self, most: int) -> int:
        """How many rows to decode at once, so that texts encoded as differences stay within `FREE_BYTES`."""
        return max(1, min(most, FREE_BYTES // self.widest_bytes)) if self.widest_bytes else most


def check_column(file: IO[bytes], column: pq.ColumnChunkMetaData, name: str) -> Weight:
    """Make sure that a column chunk does not grow out of proportion when it is decoded, and return its weight.

    Texts must be read as dictionaries, or as many rows at once as `Weight.rows_at_once` says.

    Raises:
        InvalidRequest: decoding makes more than `FREE_BYTES` and `MAX_RATIO` times the chunk's bytes, or a header is
            damaged.
    """
    weight = weigh_column(file, column, name)
    if weight.decoded_bytes > weight.allowed_bytes:
        raise InvalidRequest(
            f"the column {column.path_in_schema!r} of {name!r} has {column.total_compressed_size:,} bytes that "
            f"become more than {weight.allowed_bytes:,}; write the file anew with smaller row groups or without "
            "compression"
        )
    return weight


def weigh_column(file: IO[bytes], column: pq.ColumnChunkMetaData, name: str) -> Weight:
    """What decoding a column chunk takes, by the headers of its pages. Raises `InvalidRequest` if one is damaged."""
    width = column_width(column)
    allowed = FREE_BYTES + MAX_RATIO * max(0, column.total_compressed_size)
    decoded = widest = 0
    has_differences = False
    for page in _pages(file, column, name):
        decoded += page.uncompressed_bytes + width * page.n_values
        widest = max(widest, page.uncompressed_bytes)
        has_differences = has_differences or page.encoding in _DIFFERENCES
    return Weight(decoded, allowed, max(1, widest) if has_differences else 0)


def column_width(column: pq.ColumnChunkMetaData) -> int:
    """The bytes that a value takes beside the page it lies in."""
    return _WIDTHS.get(column.physical_type, _INDEX_WIDTH)


def _pages(file: IO[bytes], column: pq.ColumnChunkMetaData, name: str) -> Iterator[Page]:
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset is not None:
        start = min(start, column.dictionary_page_offset)
    at, end = start, start + column.total_compressed_size
    for _ in range(MAX_PAGES):
        if at >= end:
            return
        page, n_bytes = _page(file, at, name)
        yield page
        at += n_bytes + page.compressed_bytes
    raise InvalidRequest(f"the column {column.path_in_schema!r} of {name!r} has more than {MAX_PAGES:,} pages")


def _page(file: IO[bytes], at: int, name: str) -> tuple[Page, int]:
    """The page that begins at an offset, and the length of its header."""
    for n_bytes in HEADER_BYTES:
        try:
            file.seek(at)
            data = io.BytesIO(file.read(n_bytes))
            header = _struct(data, 0)
            kind = next((key for key in (_PAGE, _PAGE_V2, _DICTIONARY) if key in header), None)
            about: Struct = header[kind] if kind is not None else {}
            encoding = about.get(_ENCODING.get(kind or 0, 0), 0)
            page = Page(about.get(_N_VALUES, 0), header[_UNCOMPRESSED], header[_COMPRESSED], encoding)
        except EOFError:
            continue  # statistics can make a header long
        except (KeyError, AttributeError, TypeError, ValueError, OverflowError):
            break
        if all(isinstance(number, int) and number >= 0 for number in page):
            return page, data.tell()
        break
    raise InvalidRequest(f"{name!r} cannot be read as Parquet: the page at byte {at:,} is damaged")


def _struct(data: IO[bytes], depth: int) -> Struct:
    """A struct's fields by number; texts and lists are passed over and become None."""
    if depth > MAX_NESTING:
        raise ValueError("structs nest deeply")
    fields: Struct = {}
    number = 0
    while head := _byte(data):
        number = number + (head >> 4) if head >> 4 else _zigzag(data)
        fields[number] = _value(data, head & 15, depth)
    return fields


def _value(data: IO[bytes], kind: int, depth: int) -> Any:
    match kind:
        case 1 | 2:  # true and false lie in the type
            return None
        case 3:
            return _byte(data)
        case 4 | 5 | 6:
            return _zigzag(data)
        case 7:
            return _skip(data, 8)
        case 8:
            return _skip(data, _varint(data))
        case 9 | 10:
            return _list(data, depth)
        case 12:
            return _struct(data, depth + 1)
    raise ValueError("unknown type")


def _list(data: IO[bytes], depth: int) -> None:
    head = _byte(data)
    length = head >> 4 if head >> 4 != 15 else _varint(data)
    for _ in range(length):
        if head & 15 in (1, 2):
            _byte(data)
        else:
            _value(data, head & 15, depth + 1)


def _byte(data: IO[bytes]) -> int:
    byte = data.read(1)
    if not byte:
        raise EOFError
    return byte[0]


def _skip(data: IO[bytes], n_bytes: int) -> None:
    if len(data.read(n_bytes)) < n_bytes:
        raise EOFError


def _varint(data: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a number has over ten bytes")


def _zigzag(data: IO[bytes]) -> int:
    value = _varint(data)
    return (value >> 1) ^ -(value & 1)
