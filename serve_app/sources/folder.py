"""A folder as a dataset: every image file in it, labelled by the sub-folder it lies in.

What counts is the file's name; what a file really holds shows when it is read. Hidden names and the
folders that systems leave behind are passed over. Symbolic links to folders are not entered, so a loop
cannot form; anything else that is named like an image is listed, and skipped with a reason when it turns
out to be a link, a pipe or a folder without permission at embedding.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources.files import OPEN_FOLDER, encode_name, stat_in
from serve_app.sources.listing import MAX_DEPTH, MAX_IMAGES, is_left_out, too_many_images

EXTENSIONS = frozenset({b".jpg", b".jpeg", b".jpe", b".png", b".webp", b".gif", b".bmp", b".tif", b".tiff", b".avif"})


def images(root: Path, suffixes: frozenset[bytes] = EXTENSIONS) -> Iterator[SourceFile]:
    """Every image below `root`, in the order of their paths' bytes; memory grows with the largest folder.

    Args:
        root: the folder.
        suffixes: lower-case endings of the names that count; those of images, unless containers are wanted.

    Raises:
        InvalidRequest: a folder cannot be read, or folders nest deeper than `MAX_DEPTH`. An unreadable
            sub-folder is not passed over: a rescan would take all its images for deleted.
    """
    try:
        root_fd = os.open(root, OPEN_FOLDER)
    except OSError as error:
        raise InvalidRequest(f"the dataset's folder cannot be opened: {_reason(error)}") from None
    yield from _walk(root_fd, b"", suffixes, depth=0)


def _walk(folder_fd: int, folder: bytes, suffixes: frozenset[bytes], *, depth: int) -> Iterator[SourceFile]:
    """List an open folder, whose path below the root is `folder`, and close it."""
    try:
        label = encode_name(folder) or None
        for name in _entries(folder_fd, folder, suffixes):
            path = folder + b"/" + name if folder else name
            if not name.endswith(b"/"):
                file_name = encode_name(path)
                yield SourceFile(file_name, file_name, label, *stat_in(folder_fd, name))
                continue
            inner_fd = _enter(folder_fd, path[:-1], depth=depth + 1)
            if inner_fd is not None:
                yield from _walk(inner_fd, path[:-1], suffixes, depth=depth + 1)
    finally:
        os.close(folder_fd)


def _entries(folder_fd: int, folder: bytes, suffixes: frozenset[bytes]) -> list[bytes]:
    """Names of the images and, with a slash behind, the sub-folders of a folder.

    With the slash, sorting each folder sorts the whole listing by path.
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
                if len(names) > MAX_IMAGES:
                    raise too_many_images()
    except OSError as error:
        raise _unreadable(folder, error) from None
    return sorted(names)


def _enter(folder_fd: int, path: bytes, *, depth: int) -> int | None:
    """Open a sub-folder; None when it went away, or became something else, since it was listed."""
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
