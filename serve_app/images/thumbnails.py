"""A bounded cache of thumbnails on disk; processes share it, and its files may be deleted at any time."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

MAX_FILES_PER_SHARD = 256
"""With 256 shards this allows 65,536 thumbnails, about 0.7 GB at 10 kB each."""


class ThumbnailCache:
    """A folder of encoded thumbnails under opaque keys; a full shard loses its oldest quarter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(dataset_id: str, sample_id: str, size_bytes: int, mtime_ns: int, size_px: int) -> str:
        """The key of a thumbnail; it changes when the sample's file changes."""
        parts = (dataset_id, sample_id, size_bytes, mtime_ns, size_px)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def get(self, key: str) -> bytes | None:
        """The thumbnail, or None if it does not exist or cannot be read."""
        try:
            return self._path(key).read_bytes()
        except OSError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Store a thumbnail; errors of the disk are ignored, because a thumbnail can always be made again."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_room(path.parent)
            _write_whole(path, data)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that readers see the whole file or none."""
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
    """The file's mtime; a file that another process has removed meanwhile counts as the oldest."""
    try:
        return entry.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
