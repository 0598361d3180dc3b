"""Checks that a dataset's folder, URL and annotation file lie below `Settings.dataset_roots`.

These checks protect registration against callers; `files` protects every later read against changes on disk.
"""

import errno
import os
import stat
from pathlib import Path

from serve_app.errors import InvalidRequest, OutsideRoots
from serve_app.sources.files import OPEN_FOLDER, open_real
from serve_app.sources.shortage import raise_shortage
from serve_app.urls import Url, is_url, parse

Roots = tuple[Path | str, ...]
"""Real paths of folders, and URLs, as in `Settings.dataset_roots`."""

MAX_PATH_CHARS = 4096
_NEVER = tuple(map(Path, ("/proc", "/sys", "/dev")))
# The text is constant, so that it does not reveal whether something exists outside the roots.
_OUTSIDE = (
    "this path is not below a folder or URL that the service may read; start the service with "
    "CONSTELLATE_DATASET_ROOTS=FOLDER or s3://BUCKET (several separated by ':') to allow it; never /, /proc, /sys "
    "or /dev"
)


def allows(url: Url, roots: Roots) -> bool:
    """Whether a URL is one of the roots or below one."""
    return any(url.is_below(parse(str(root))) for root in roots if is_url(str(root)))


def require_root(root: str, roots: Roots) -> None:
    """Make sure that a dataset's root, a real path or a URL, is still below the roots; nothing is looked up on disk.

    Raises:
        OutsideRoots: it is not, because the setting was changed since the dataset was registered.
    """
    if not (allows(parse(root), roots) if is_url(root) else is_below(Path(root), roots)):
        raise OutsideRoots(_OUTSIDE)


def check_root(path: str, roots: Roots) -> Path | Url:
    """The real path or the URL of a folder that may become a dataset.

    A URL is checked by name only; its contents are checked when it is listed.

    Args:
        path: the path or URL from the caller; a relative path is below the first folder among the roots.
        roots: the setting.

    Raises:
        OutsideRoots: the path, with links resolved, is not below a root; the message does not show whether it exists.
        InvalidRequest: the text is neither a path nor a URL, or the path is not a readable folder.
    """
    if is_url(path):
        return _allowed(path, roots)
    real, folder_fd = open_root(path, roots)
    os.close(folder_fd)
    return real


def open_root(path: str, roots: Roots) -> tuple[Path, int]:
    """The real path of a folder that may become a dataset, and its descriptor, which the caller closes.

    Raises:
        OutsideRoots: as for `check_root`.
        InvalidRequest: the text is not a path of a folder that can be listed and entered.
    """
    real = _real_path(path, _first_folder(roots), roots)
    try:
        # Opening the folder needs the right to list it, and opening the dot in it the right to enter it.
        folder_fd = open_real(real, OPEN_FOLDER)
        try:
            return real, os.open(".", OPEN_FOLDER, dir_fd=folder_fd)
        finally:
            os.close(folder_fd)
    except OSError as error:
        raise InvalidRequest(f"root {path!r} {_problem(error, wanted='folder')}") from None


def check_annotations(path: str, root: Path | Url, roots: Roots) -> Path | Url:
    """The real path or URL of an annotation file; a relative path is below the dataset's `root`.

    Raises:
        OutsideRoots: as for `check_root`.
        InvalidRequest: the text is neither a path nor a URL, or the path is not a readable regular file.
    """
    if is_url(path):
        return _allowed(path, roots)
    if isinstance(root, Url):
        return _allowed(f"{root}/{path}", roots)
    real = _real_path(path, root, roots)
    try:
        fd = open_real(real)
    except OSError as error:
        raise InvalidRequest(f"annotations {path!r} {_problem(error, wanted='file')}") from None
    is_file = stat.S_ISREG(os.fstat(fd).st_mode)
    os.close(fd)
    if not is_file:
        raise InvalidRequest(f"annotations {path!r} is not a file")
    return real


def _allowed(text: str, roots: Roots) -> Url:
    url = parse(text.strip())
    if not allows(url, roots):
        raise OutsideRoots(_OUTSIDE)
    if not url.host:
        raise InvalidRequest(f"{text!r} names no bucket or host")
    return url


def _first_folder(roots: Roots) -> Path:
    folder = next((root for root in roots if isinstance(root, Path)), None)
    if folder is None:
        raise OutsideRoots(_OUTSIDE)
    return folder


def _real_path(path: str, base: Path, roots: Roots) -> Path:
    """Resolve all links and refuse a path outside the roots."""
    if not path or len(path) > MAX_PATH_CHARS or "\0" in path or not _is_unicode(path):
        raise InvalidRequest(
            f"a path has 1 to {MAX_PATH_CHARS} characters, all of them valid Unicode, none of them NUL"
        )
    real = Path(os.path.realpath(base / path))
    if not is_below(real, roots):
        raise OutsideRoots(_OUTSIDE)
    if not _is_unicode(str(real)):
        raise InvalidRequest(f"{path!r} leads to a folder whose name is not UTF-8; rename it")
    return real


def is_below(real: Path, roots: Roots) -> bool:
    """Whether a real path is below a folder among the roots, and is no folder of the system."""
    if real == Path("/") or any(real.is_relative_to(never) for never in _NEVER):
        return False
    return any(real.is_relative_to(root) for root in roots if isinstance(root, Path))


def _problem(error: OSError, *, wanted: str) -> str:
    raise_shortage(error)
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
