"""Which folders and annotation files a dataset may be made from: those below `Settings.dataset_roots`.

These checks guard registration, against callers; `files` guards every read after it, against the disk.
"""

import errno
import os
import re
import stat
from pathlib import Path

from serve_app.errors import InvalidRequest, OutsideRoots

MAX_PATH_CHARS = 4096
_NEVER = tuple(map(Path, ("/proc", "/sys", "/dev")))
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
# One constant text: whether something exists outside the roots must not show.
_OUTSIDE = (
    "this path is not below a folder that the service may read; start the service with "
    "CONSTELLATE_DATASET_ROOTS=FOLDER (several separated by ':') to allow it; never /, /proc, /sys or /dev"
)


def check_root(path: str, roots: tuple[Path, ...]) -> Path:
    """The real path of a folder that may become a dataset.

    Args:
        path: what the caller asked for; a relative path is below the first root.
        roots: real paths, as `Settings.dataset_roots` holds them.

    Raises:
        OutsideRoots: the path, links resolved, is not below a root; same message whether it exists or not.
        InvalidRequest: it is a URL, no path at all, no folder, or cannot be read.
    """
    real = _real_path(path, roots[0], roots)
    try:
        # The dot needs the right to enter, the listing the right to read.
        os.scandir(os.path.join(real, ".")).close()
    except OSError as error:
        raise InvalidRequest(f"root {path!r} {_problem(error, wanted='folder')}") from None
    return real


def check_annotations(path: str, root: Path, roots: tuple[Path, ...]) -> Path:
    """The real path of an annotation file; a relative path is below the dataset's `root`.

    Raises:
        OutsideRoots: as `check_root`.
        InvalidRequest: it is a URL, no path at all, no regular file, or cannot be read.
    """
    real = _real_path(path, root, roots)
    try:
        fd = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise InvalidRequest(f"annotations {path!r} {_problem(error, wanted='file')}") from None
    is_file = stat.S_ISREG(os.fstat(fd).st_mode)
    os.close(fd)
    if not is_file:
        raise InvalidRequest(f"annotations {path!r} is not a file")
    return real


def _real_path(path: str, base: Path, roots: tuple[Path, ...]) -> Path:
    """Resolve every link and refuse what lies outside the roots."""
    if _URL.match(path):
        raise InvalidRequest("URLs are not supported; give a path on the machine that the service runs on")
    if not path or len(path) > MAX_PATH_CHARS or "\0" in path or not _is_unicode(path):
        raise InvalidRequest(
            f"a path has 1 to {MAX_PATH_CHARS} characters, all of them valid Unicode, none of them NUL"
        )
    real = Path(os.path.realpath(base / path))
    if not any(real.is_relative_to(root) for root in roots):
        raise OutsideRoots(_OUTSIDE)
    if real == Path("/") or any(real.is_relative_to(never) for never in _NEVER):
        raise OutsideRoots(_OUTSIDE)
    if not _is_unicode(str(real)):
        raise InvalidRequest(f"{path!r} leads to a folder whose name is not UTF-8; rename it")
    return real


def _problem(error: OSError, *, wanted: str) -> str:
    if error.errno == errno.ENOENT:
        return "does not exist"
    if error.errno == errno.ENOTDIR:
        return f"is not a {wanted}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "cannot be read; give the service's user the right to read it and to enter its folders"
    return f"cannot be used: {os.strerror(error.errno or errno.EIO).lower()}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
