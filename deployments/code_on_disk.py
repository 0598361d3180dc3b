"""The sources of both packages as they lie on disk, which may be other than those that a process has imported."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("serve_app", "deployments")

Stamps = tuple[tuple[str, int, int], ...]


def version() -> str:
    """The SHA-256 over the paths and contents of all sources. Raises `OSError` if one of them cannot be read."""
    digest = hashlib.sha256()
    for source in _sources():
        digest.update(str(source.relative_to(ROOT)).encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


class Code:
    """The code that was on disk when this was made."""

    def __init__(self) -> None:
        self._stamps = _stamps()
        self._version = version()

    def is_on_disk(self) -> bool:
        """Whether the sources are still the same; they are read again only where sizes or times differ.

        Raises:
            OSError: a source cannot be read, or is being replaced.
        """
        stamps = _stamps()
        if stamps != self._stamps:
            if version() != self._version:
                return False
            self._stamps = stamps  # they were written again as they were
        return True


def _sources() -> list[Path]:
    return [source for package in PACKAGES for source in sorted((ROOT / package).rglob("*.py"))]


def _stamps() -> Stamps:
    """The path, the size in bytes and the time of change in ns of each source."""
    stats = ((str(source), source.stat()) for source in _sources())
    return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)
