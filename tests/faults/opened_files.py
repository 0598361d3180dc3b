"""Counts how often image files are opened, by whichever process: the work a job really does.

A replica opens a file once to embed it and nothing else of a job opens it, so that a file opened again was
embedded again. By inotify, which needs no word from the service (Linux; man 7 inotify).
"""

import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

IN_MODIFY = 0x00000002
IN_OPEN = 0x00000020
IN_ISDIR = 0x40000000
IN_Q_OVERFLOW = 0x00004000
_LIBC = ctypes.CDLL(None, use_errno=True)
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name


def new_inotify() -> int:
    """A descriptor that tells what happens to files, and does not block."""
    fd: int = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def add_watch(fd: int, folder: Path, mask: int) -> int:
    """Ask for the events of a folder's files; the number that they will have."""
    watch: int = _LIBC.inotify_add_watch(fd, os.fsencode(folder), mask)
    assert watch >= 0, os.strerror(ctypes.get_errno())
    return watch


def file_events(data: bytes) -> Iterator[tuple[int, str]]:
    """The watch and the file name of every event read from a descriptor."""
    position = 0
    while position < len(data):
        watch, mask, _, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        name = data[position : position + length].rstrip(b"\0")
        position += length
        assert not mask & IN_Q_OVERFLOW, "more events than the kernel's queue holds"
        if not mask & IN_ISDIR:
            yield watch, os.fsdecode(name)


class OpenedFiles:
    """Opens of the files of a folder since the block began, by path relative to it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[int, Path] = {}
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> "OpenedFiles":
        self._fd = new_inotify()
        for folder in (self._root, *(path for path in self._root.rglob("*") if path.is_dir())):
            self._names[add_watch(self._fd, folder, IN_OPEN)] = folder.relative_to(self._root)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def counts(self) -> Counter[str]:
        """How often each file was opened so far."""
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return Counter(self._counts)
            for watch, name in file_events(data):
                self._counts[str(self._names[watch] / name)] += 1
