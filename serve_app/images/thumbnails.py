"""Thumbnails on disk: bounded, shared by processes, safe to delete at any time."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

MAX_FILES_PER_SHARD = 256
"""Of 256 shards: 65,536 thumbnails, about 0.7 GB at 10 kB each."""


class ThumbnailCache:
    """A folder of encoded thumbnails under opaque keys; a shard that is full loses its oldest quarter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(dataset_id: str, sample_id: str, size_bytes: int, mtime_ns: int, size_px: int) -> str:
        """The name of a thumbnail: another file under the same sample has another one."""
        parts = (dataset_id, sample_id, size_bytes, mtime_ns, size_px)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        """The thumbnail, or None when it is not there or cannot be read."""
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Keep a thumbnail if the disk lets us: it can always be made again."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_room(path.parent)
            _write_whole(path, data)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _write_whole(path: Path, data: bytes) -> None:
    """The rename makes the file whole or absent for every reader, in this process and others."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _make_room(shard: Path) -> None:
    with os.scandir(shard) as entries:
        files = [(_mtime_ns(entry), entry.path) for entry in entries]
    if len(files) < MAX_FILES_PER_SHARD:
        return
    for _, path in sorted(files)[: MAX_FILES_PER_SHARD // 4]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _mtime_ns(entry: os.DirEntry[str]) -> int:
    """Another process may have removed the file meanwhile; it then counts as the oldest."""
    try:
        return entry.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
