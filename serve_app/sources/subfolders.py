"""Looks into folders for somebody who chooses one: its sub-folders, and how many images they seem to have.

Only names are read, and of a large folder only the first ones, so that looking is cheap on slow storage too.
"""

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from serve_app.errors import InvalidRequest
from serve_app.sources.files import OPEN_FOLDER, open_real
from serve_app.sources.folder import EXTENSIONS
from serve_app.sources.listing import is_left_out
from serve_app.sources.shortage import raise_shortage

LOOKED_AT = 1000
"""How many names of a folder are read to count its images."""
MAX_NAMES = 100_000
"""How many names of a folder are read to list its sub-folders."""


@dataclass(frozen=True, slots=True)
class Subfolder:
    """A folder: its name, its real path, and the images directly in it.

    `images` counts those among its first 1,000 names; it is None if the service may not look.
    """

    name: str
    path: str
    images: int | None


def look(path: Path) -> Subfolder:
    """A folder by its real path."""
    try:
        fd = open_real(path, OPEN_FOLDER)
    except OSError as error:
        raise_shortage(error)
        return Subfolder(path.name or str(path), str(path), None)
    return Subfolder(path.name or str(path), str(path), _count_and_close(fd))


def subfolders(path: Path, folder_fd: int, after: str, limit: int) -> tuple[list[Subfolder], bool]:
    """The sub-folders of an open folder that a listing would enter, in the order of their names.

    Args:
        path: the folder's real path.
        folder_fd: its descriptor, which stays open.
        after: the name of the last sub-folder that is known, empty for none.
        limit: how many to return.

    Returns:
        Sub-folders, and whether there are more.

    Raises:
        InvalidRequest: the folder cannot be read.
    """
    try:
        names = sorted(name for name in _names(folder_fd) if name > after)
    except OSError as error:
        raise_shortage(error)
        raise InvalidRequest("the folder cannot be read") from None
    found = [Subfolder(name, str(path / name), _images(folder_fd, name)) for name in names[:limit]]
    return found, len(names) > limit


def _names(folder_fd: int) -> list[str]:
    with os.scandir(folder_fd) as entries:
        return [
            entry.name
            for entry in islice(entries, MAX_NAMES)
            if not is_left_out(os.fsencode(entry.name)) and _is_unicode(entry.name) and _is_folder(entry)
        ]


def _images(folder_fd: int, name: str) -> int | None:
    try:
        fd = os.open(name, OPEN_FOLDER, dir_fd=folder_fd)
    except OSError as error:
        raise_shortage(error)
        return None
    return _count_and_close(fd)


def _count_and_close(folder_fd: int) -> int | None:
    try:
        with os.scandir(folder_fd) as entries:
            suffixes = (os.path.splitext(os.fsencode(entry.name))[1].lower() for entry in islice(entries, LOOKED_AT))
            return sum(suffix in EXTENSIONS for suffix in suffixes)
    except OSError as error:
        raise_shortage(error)
        return None
    finally:
        os.close(folder_fd)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError as error:
        raise_shortage(error)
        return False


def _is_unicode(name: str) -> bool:
    """Whether the name can be sent; a dataset's root is a path in UTF-8."""
    return not any("\udc80" <= letter <= "\udcff" for letter in name)
