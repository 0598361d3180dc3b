"""The messages of an Arrow file or stream: how many bytes decoding makes, told before anything is decoded.

pyarrow trusts the length that stands before each compressed buffer. A message's header is a FlatBuffers table (format:
arrow.apache.org/docs/format/Columnar.html).
"""

import mmap
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from serve_app.errors import InvalidRequest
from serve_app.sources.parquet_pages import FREE_BYTES, MAX_RATIO

MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
_OLD_COMPRESSION = b"ARROW:experimental_compression"
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_NOT_COMPRESSED = -1


class Table(NamedTuple):
    """A FlatBuffers table: the bytes that it lies in, and its place in them."""

    data: bytes
    at: int

    def place(self, number: int) -> int | None:
        """The place of a field by its number in the schema, or None if it has its default."""
        vtable = self.at - _int(self.data, self.at, "<i")
        slot = 4 + 2 * number
        offset = _int(self.data, vtable + slot, "<H") if slot < _int(self.data, vtable, "<H") else 0
        return self.at + offset if offset else None

    def number(self, number: int, form: str) -> int:
        """A field's number, or 0 if it is absent."""
        place = self.place(number)
        return 0 if place is None else _int(self.data, place, form)

    def table(self, number: int) -> "Table":
        """A field's table; raises `ValueError` if it is absent."""
        place = self.place(number)
        if place is None:
            raise ValueError("a table is missing")
        return Table(self.data, place + _int(self.data, place, "<I"))

    def rows(self, number: int, form: str) -> Iterator[tuple[int, ...]]:
        """The structs of a field's vector, or none if it is absent."""
        place = self.place(number)
        if place is not None:
            start = place + _int(self.data, place, "<I")
            end = start + 4 + _int(self.data, start, "<I") * struct.calcsize(form)
            yield from struct.iter_unpack(form, self.data[start + 4 : end])


def check(file: BinaryIO) -> None:
    """Make sure that an Arrow file or stream does not grow out of proportion when it is decoded.

    Args:
        file: an open file on disk that is not empty.

    Raises:
        InvalidRequest: decoding makes more than `FREE_BYTES` and `MAX_RATIO` times the file's bytes.
        ValueError: a message is damaged.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        allowed = FREE_BYTES + MAX_RATIO * len(content)
        decoded = 0
        try:
            for message, body in _messages(content):
                decoded += _decoded_bytes(content, message, body)
                if decoded > allowed:
                    raise InvalidRequest(
                        f"the file's {len(content):,} bytes become more than {allowed:,}; write it without compression"
                    )
        except (struct.error, OverflowError):
            raise ValueError("a message is damaged") from None


def _messages(content: mmap.mmap) -> Iterator[tuple[bytes, int]]:
    """Each message's header and the place of its body."""
    return _of_file(content) if content[: len(MAGIC)] == MAGIC else _of_stream(content)


def _of_file(content: mmap.mmap) -> Iterator[tuple[bytes, int]]:
    end = len(content) - len(MAGIC) - 4
    footer = _root(content[max(0, end - max(0, _int(content, end, "<i"))) : end])
    for field in (2, 3):  # dictionaries, record batches
        for offset, n_bytes, _ in footer.rows(field, "<qi4xq"):
            start = offset + (8 if content[offset : offset + 4] == _CONTINUATION else 4)
            yield content[start : offset + n_bytes], offset + n_bytes


def _of_stream(content: mmap.mmap) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + 4 <= len(content):
        at += 4 if content[at : at + 4] == _CONTINUATION else 0
        n_bytes = _int(content, at, "<i")
        if n_bytes <= 0:
            return
        body = at + 4 + n_bytes
        message = content[at + 4 : body]
        yield message, body
        at = body + max(0, _root(message).number(3, "<q"))


def _decoded_bytes(content: mmap.mmap, message: bytes, body: int) -> int:
    header = _root(message)
    kind = header.number(1, "<B")
    if kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = header.table(2).table(1) if kind == _DICTIONARY_BATCH else header.table(2)
    buffers = batch.rows(2, "<qq")
    if batch.place(3) is None and _OLD_COMPRESSION not in message:
        return sum(max(0, n_bytes) for _, n_bytes in buffers)
    return sum(_length(content, body + offset, n_bytes) for offset, n_bytes in buffers if n_bytes > 0)


def _length(content: mmap.mmap, at: int, n_bytes: int) -> int:
    """The bytes of a compressed buffer once it is decoded."""
    stated = _int(content, at, "<q")
    return n_bytes if stated == _NOT_COMPRESSED else max(0, stated)


def _root(data: bytes) -> Table:
    return Table(data, _int(data, 0, "<I"))


def _int(data: bytes | mmap.mmap, at: int, form: str) -> int:
    if at < 0:
        raise ValueError("an offset is negative")
    return int(struct.unpack_from(form, data, at)[0])
