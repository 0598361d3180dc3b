"""Lists a folder as a dataset: every image file in it, labelled by the file's sub-folder.

The listing goes by file names, because a file's content is known only when it is read. It leaves out hidden names and
folders that systems create, and does not enter symbolic links to folders, so loops cannot occur. Anything else that is
named like an image is listed. If it is a link, a pipe or not readable, the embed job skips it with a reason.
"""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources.files import OPEN_FOLDER, encode_name, open_real, stat_in
from serve_app.sources.listing import MAX_DEPTH, MAX_IMAGES, is_left_out, too_many_images
from serve_app.sources.shortage import raise_shortage

EXTENSIONS = frozenset(
    {
        *(b".jpg", b".jpeg", b".jpe", b".png", b".webp", b".gif", b".bmp", b".tif", b".tiff", b".avif"),
        *(b".heic", b".heif", b".hif", b".jxl", b".jp2"),
    }
)
"""Suffixes of images, also of formats that are not decoded: their files are listed and skipped with the reason, and
not left out without a word."""


def images(
    root: Path, suffixes: frozenset[bytes] = EXTENSIONS, linked: Callable[[str], None] = lambda name: None
) -> Iterator[SourceFile]:
    """Every image below `root`, in the order of their paths' bytes; memory grows with the largest folder.

    Args:
        root: the folder.
        suffixes: the lower-case suffixes of files to list, by default those of images.
        linked: is told of each symbolic link to a folder; such a name ends in a slash.

    Raises:
        InvalidRequest: a folder cannot be read, or folders nest deeper than `MAX_DEPTH`. An unreadable sub-folder is
            an error, because otherwise a rescan would treat all its images as deleted.
    """
    try:
        root_fd = open_real(root, OPEN_FOLDER)
    except OSError as error:
        raise_shortage(error)
        raise InvalidRequest(f"the dataset's folder cannot be opened: {_reason(error)}") from None
    yield from _walk(root_fd, b"", suffixes, linked, depth=0)


def _walk(
    folder_fd: int, folder: bytes, suffixes: frozenset[bytes], linked: Callable[[str], None], *, depth: int
) -> Iterator[SourceFile]:
    """List and close an open folder; `folder` is its path below the root."""
    try:
        label = encode_name(folder) or None
        for name in _entries(folder_fd, folder, suffixes, linked):
            path = folder + b"/" + name if folder else name
            if not name.endswith(b"/"):
                file_name = encode_name(path)
                yield SourceFile(file_name, file_name, label, *stat_in(folder_fd, name))
                continue
            inner_fd = _enter(folder_fd, path[:-1], depth=depth + 1)
            if inner_fd is not None:
                yield from _walk(inner_fd, path[:-1], suffixes, linked, depth=depth + 1)
    finally:
        os.close(folder_fd)


def _entries(folder_fd: int, folder: bytes, suffixes: frozenset[bytes], linked: Callable[[str], None]) -> list[bytes]:
    """The names of a folder's images and sub-folders; names of sub-folders end in a slash.

    Because of the slash, sorting each folder sorts the whole listing by path.
    """
    names = []
    try:
        with os.scandir(folder_fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if is_left_out(name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    names.append(name + b"/")
                elif os.path.splitext(name)[1].lower() in suffixes:
                    names.append(name)
                elif entry.is_symlink() and entry.is_dir():
                    linked(encode_name(folder + b"/" + name if folder else name) + "/")
                if len(names) > MAX_IMAGES:
                    raise too_many_images()
    except OSError as error:
        raise _unreadable(folder, error) from None
    return sorted(names)


def _enter(folder_fd: int, path: bytes, *, depth: int) -> int | None:
    """Open a sub-folder; None if it has disappeared or is no folder any more since it was listed."""
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"folders nest deeper than {MAX_DEPTH} at {encode_name(path)!r}; register a folder further down"
        )
    try:
        return os.open(os.path.basename(path), OPEN_FOLDER, dir_fd=folder_fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise _unreadable(path, error) from None


def _unreadable(folder: bytes, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"folder {encode_name(folder) or '.'!r} cannot be read: {_reason(error)}; "
        "let the service's user list and enter it, or move it out of the dataset"
    )


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
