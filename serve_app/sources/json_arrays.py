"""The entries of a JSON file's top-level arrays, read in a stream; it knows nothing of what they mean.

Two things that are no JSON, or more than the parser takes at its usual speed, are read nevertheless, because common
writers make them: `NaN` and `Infinity` become empty texts, and numbers of more than 64 bits keep all their digits.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import ijson

from serve_app.errors import InvalidRequest
from serve_app.sources.listing import open_listing

CHUNK_BYTES = 1 << 16
KEPT_DEPTH = 4
MAX_DEPTH = 64
MAX_TEXT_BYTES = 1 << 20
LONG_DIGITS = 18

_OPENING = frozenset({"start_map", "start_array"})
_CLOSING = frozenset({"end_map", "end_array"})
_DIGITS = bytes(b"0"[0] if chr(byte) in "0123456789" else byte for byte in range(256))
_TEXT_OR_NAN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|-?(?:NaN|Infinity)', re.DOTALL)
_LONGEST_NAN = len(b"-Infinity")
# For a number of thousands of digits, ijson ends in one of the last two.
_FAILURES = (ijson.JSONError, ValueError, SystemError)


def entries(path: Path, *, depth: int = KEPT_DEPTH) -> Iterator[tuple[str, Any]]:
    """Each top-level array's key with None, and then the key with each entry; what nests deeper is left out.

    Raises:
        InvalidRequest: the file cannot be opened or is not JSON; the message has the byte.
    """
    needs = _needs(path)
    with closing(open_listing(path)) as opened:
        file = _WithoutNan(opened) if needs.nan else opened
        section, entry = "", ijson.ObjectBuilder()
        try:
            for level, event, value in _shallow_events(file, path.name, needs, depth):
                if level == 1 and event == "map_key":
                    section = value
                elif level == 2 and event not in _CLOSING:
                    yield section, None if event in _OPENING else value
                elif level > 2:
                    if level == 3 and event in _OPENING:
                        entry = ijson.ObjectBuilder()
                    entry.event(event, value)
                    if level == 3 and event in _CLOSING:
                        yield section, entry.value
        except _FAILURES as error:
            byte = _broken_byte(path, needs, near=opened.tell())
            raise InvalidRequest(f"{path.name!r} is not valid UTF-8 JSON at byte {byte:,}: {_reason(error)}") from None


class _Needs(NamedTuple):
    """What a file needs beside plain JSON."""

    nan: bool
    long_numbers: bool


class _WithoutNan:
    """A file in which `NaN` and `Infinity` outside texts are empty texts of equal length."""

    def __init__(self, file: BufferedReader) -> None:
        self._file, self._ready, self._rest = file, BytesIO(), b""

    def read(self, n_bytes: int) -> bytes:
        data = self._ready.read(n_bytes)
        while n_bytes and not data and self._fill():
            data = self._ready.read(n_bytes)
        return data

    def _fill(self) -> bool:
        """Make more bytes ready, as far as texts are complete; False at the end of the file."""
        chunk = self._file.read(CHUNK_BYTES)
        data = self._rest + chunk
        end = _complete(data) if chunk else len(data)
        if len(data) - end > MAX_TEXT_BYTES:
            raise ValueError(f"the file has NaN, and a text of over {MAX_TEXT_BYTES:,} bytes")
        self._ready, self._rest = BytesIO(_TEXT_OR_NAN.sub(_blank, data[:end])), data[end:]
        return bool(data)


def _complete(data: bytes) -> int:
    """The number of bytes before the first text, or part of a word, that goes on after the data."""
    end = 0
    for found in _TEXT_OR_NAN.finditer(data):
        end = found.end()
    quote = data.find(b'"', end)
    return quote if quote >= 0 else max(end, len(data) - _LONGEST_NAN)


def _blank(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0].startswith(b'"') else b'""'.ljust(len(found[0]))


def _needs(path: Path) -> _Needs:
    """Look for what plain parsing cannot read; this takes a small part of the time of parsing."""
    nan = long_numbers = False
    before = b""
    with closing(open_listing(path)) as file:
        while chunk := file.read(CHUNK_BYTES):
            data = before + chunk
            nan = nan or b"NaN" in data or b"Infinity" in data
            long_numbers = long_numbers or b"0" * (LONG_DIGITS + 1) in data.translate(_DIGITS)
            before = data[-LONG_DIGITS:]
    return _Needs(nan, long_numbers)


def _shallow_events(file: Any, name: str, needs: _Needs, kept_depth: int) -> Iterator[tuple[int, str, Any]]:
    """The parser's events inside at most `kept_depth` brackets, each with its depth.

    `ijson.items` is unsuitable: it keeps the path of every open bracket, so that 100 kB of `[` take gigabytes, and it
    builds the polygons, which are most of the file.
    """
    depth = 0
    for event, value in ijson.basic_parse(file, use_float=not needs.long_numbers, buf_size=CHUNK_BYTES):
        if depth > kept_depth and event == "number":
            continue  # corners of polygons are nearly all events of a large file
        depth += event in _OPENING
        if depth <= kept_depth:
            yield depth, event, float(value) if isinstance(value, Decimal) else value
        elif depth > MAX_DEPTH:
            raise InvalidRequest(f"{name!r} is not a COCO file: its brackets nest deeper than {MAX_DEPTH}")
        depth -= event in _CLOSING


def _reason(error: Exception) -> str:
    """The first line of yajl's message; its other lines quote the file, and may not be UTF-8."""
    if isinstance(error, SystemError):
        return "a number has thousands of digits"
    message = error.args[0] if error.args else type(error).__name__
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return text.splitlines()[0].rstrip(".")


def _broken_byte(path: Path, needs: _Needs, *, near: int) -> int:
    """The byte at which the parser gives up; it lies in the last chunks that were read before `near`."""
    with closing(open_listing(path)) as opened:
        file = _WithoutNan(opened) if needs.nan else opened
        n_read, n_ahead = opened.tell(), 2 * CHUNK_BYTES + (MAX_TEXT_BYTES if needs.nan else 0)
        sink = ijson.sendable_list()
        parser = ijson.basic_parse_coro(sink, use_float=not needs.long_numbers)
        try:
            while chunk := file.read(CHUNK_BYTES if n_read + n_ahead < near else 1):
                n_read += len(chunk)
                parser.send(chunk)
                sink.clear()
        except _FAILURES:
            return n_read
        return n_read
