"""The lines of a text file, with a bound on their length; they may end as on Windows, Linux or the first Macs."""

import codecs
import re
from collections.abc import Iterator
from typing import IO

from serve_app.errors import InvalidRequest

CHUNK_BYTES = 1 << 13
MAX_LINE_BYTES = 1 << 20
_END = re.compile(r"\r\n|\r(?!\Z)|\n")
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def lines(file: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a file from its present position on, each with its end.

    The text is UTF-8, or UTF-16 if it begins with the mark of it, as Excel's "Unicode text" does.

    Raises:
        InvalidRequest: the text has another encoding or a line of over `MAX_LINE_BYTES`; the message has the line.
    """
    number, rest = 0, ""
    for text, is_broken in _decoded(file):
        rest += text
        end = 0
        for found in _END.finditer(rest):
            start, end, number = end, found.end(), number + 1
            yield _short(rest[start:end], number, name)
        rest = rest[end:]
        _short(rest, number + 1, name)
        if is_broken:
            raise InvalidRequest(f"line {number + 1} of {name!r} is not UTF-8; save the file as 'CSV UTF-8'")
    if rest:
        yield rest


def _decoded(file: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Pieces of text, each with whether a byte follows that is no text."""
    start = file.tell()
    encoding = _UTF16.get(file.read(2))
    if encoding is None:
        file.seek(start)
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    is_last = False
    while not is_last:
        chunk = file.read(CHUNK_BYTES)
        is_last = not chunk
        try:
            yield decoder.decode(chunk, final=is_last), False
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(error.encoding), True
            return


def _short(line: str, number: int, name: str) -> str:
    if len(line) >= MAX_LINE_BYTES:
        raise InvalidRequest(f"line {number} of {name!r} has over {MAX_LINE_BYTES:,} bytes; is the file CSV?")
    return line
