"""Tells errors of a file or a server from a lack of memory or descriptors in this process.

A lack says nothing about the file that was being read. If it became the reason of a skip, a good vector would be
replaced by nothing; so it is raised as what it is, and the caller repeats the work or its process ends.
"""

import errno
import os
import socket
from collections.abc import Iterator

from serve_app.errors import Unavailable

_CODES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def raise_shortage(error: BaseException) -> None:
    """Raise the lack that caused an error of a system call or library; return if the error has another cause.

    Libraries may lose the cause on the way, so this also looks whether a file can be opened now.

    Raises:
        MemoryError: the process has not got enough memory.
        Unavailable: too many files are open, or the kernel has not got enough memory.
    """
    for cause in _causes(error):
        if isinstance(cause, MemoryError) or _is_lookup_without_memory(cause):
            raise MemoryError(str(cause)) from None
        if isinstance(cause, OSError) and cause.errno in _CODES:
            raise _unavailable(cause.errno) from None
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as probe:
        if probe.errno in _CODES:
            raise _unavailable(probe.errno) from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__


def _is_lookup_without_memory(error: BaseException) -> bool:
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_MEMORY


def _unavailable(code: int) -> Unavailable:
    return Unavailable(f"files cannot be opened now: {os.strerror(code).lower()}")
