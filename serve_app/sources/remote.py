"""What all remote storage shares: buffered reading of files, and the meaning of errors."""

import errno
import hashlib
import io
import re
from collections.abc import Callable
from typing import Protocol

import httpx
import pyarrow as pa

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources.shortage import raise_shortage

READ_AHEAD_BYTES = 1 << 20
FAILURES = (OSError, pa.ArrowException, httpx.HTTPError)
"""The errors that storage libraries raise; the hub's library raises those of httpx."""
_PERMISSION = (
    *("ACCESS_DENIED", "SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "HTTP STATUS 403", "HTTP STATUS 401"),
    *("PERMISSION_DENIED", "UNAUTHENTICATED", "AUTHORIZATIONPERMISSION", "FORBIDDEN"),
)
_MISSING = ("NO_SUCH_BUCKET", "NO_SUCH_KEY", "NOT_FOUND", "NOT FOUND", "HTTP STATUS 404")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""The names of buckets and objects in an error's text; they may contain any of the marks above."""
_DETAILS = {
    "not_found": "it is not there",
    "permission_denied": "the service may not read it; give its credentials the right to, in its environment",
    "unreachable": "the storage does not answer; try again later",
}


class SeekableFile(Protocol):
    """A file that can be read at any position, such as `pyarrow.NativeFile`."""

    def read(self, nbytes: int, /) -> bytes: ...  # noqa: D102

    def seek(self, position: int, whence: int = 0, /) -> int: ...  # noqa: D102

    def size(self) -> int: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class RawFile(io.RawIOBase):
    """A `SeekableFile` as one of Python's raw files, which `BufferedReader`, tarfile, csv and ijson need.

    The buffer in front of it is large, because in the time of a request's round trip a megabyte arrives as well.
    """

    def __init__(self, source: SeekableFile) -> None:
        super().__init__()
        self._source = source
        self._size = source.size()
        self._position = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: D102
        self._position = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        return self._position

    def tell(self) -> int:  # noqa: D102
        return self._position

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]  # noqa: D102
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        try:
            self._source.seek(self._position)
            data = self._source.read(wanted)
        except FAILURES as error:
            raise unreadable(error) from None
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:  # noqa: D102
        if not self.closed:
            self._source.close()
        super().close()


def reason_of(error: Exception) -> str:
    """The skip reason for an error of a storage library.

    Raises:
        MemoryError, Unavailable: the error comes from a lack in this process, see `raise_shortage`.
    """
    raise_shortage(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    message = str(error).rpartition("AWS Error ")[2]
    text = f"{_QUOTED.sub('', message)} HTTP status {status}".upper()
    if isinstance(error, FileNotFoundError) or any(mark in text for mark in _MISSING):
        return "not_found"
    refused = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM)
    if refused or any(mark in text for mark in _PERMISSION):
        return "permission_denied"
    return "unreachable"


def unreadable(error: Exception) -> RefusedImage:
    """The `RefusedImage` for a file's error; it hides the library's text, which names hosts and request ids.

    Raises:
        MemoryError, Unavailable: see `reason_of`.
    """
    reason = reason_of(error)
    return RefusedImage(f"{reason}: {_DETAILS[reason]}")


def unusable(error: Exception, what: str) -> InvalidRequest:
    """The `InvalidRequest` for an error of a folder or annotation file at registration.

    Raises:
        MemoryError, Unavailable: see `reason_of`.
    """
    return InvalidRequest(f"{what} cannot be read: {_DETAILS[reason_of(error)]}")


def change_mark(text: str) -> int:
    """A number that replaces a time of change: 62 bits of the hash of an entity tag or version."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


def reading(open_source: Callable[[], SeekableFile]) -> io.BufferedReader:
    """Open a source for buffered reading. Raises whatever `open_source` raises."""
    return io.BufferedReader(RawFile(open_source()), READ_AHEAD_BYTES)
