"""The output of `constellate bulk` as a dataset: a folder of Parquet parts with file names and vectors.

This module knows names and metadata. The vectors themselves are read where imports are.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from serve_app.errors import InvalidRequest
from serve_app.records import PartsVectors, SourceFile
from serve_app.sources import folder, manifest
from serve_app.sources.listing import open_listing
from serve_app.sources.parquet_table import Table
from serve_app.sources.roots import MAX_PATH_CHARS, Roots, is_below
from serve_app.urls import Url, is_url, parse

MAX_TEXT = 200
"""The length of a model's name or a space's key that an import takes."""
_PART = re.compile(r"part-\d{5,}\.parquet")
_KEYS = ("source", "inputs", "space_key", "model_name")
_SUFFIXES = folder.EXTENSIONS | {b".parquet"}
_EXPECTED = re.compile(r"left out: 'vector', columns of .*|.*, so its images have no labels")
"""What a manifest would say of every part."""


class Part(NamedTuple):
    """One file: its path, rows, and what the run noted in it."""

    path: Path
    n_rows: int
    marks: dict[str, str]


def is_there(root: Path) -> bool:
    """Whether the folder has a part of `constellate bulk`."""
    return any(_part(path) is not None for path in _candidates(root)[:1])


def parts(root: Path) -> list[Part]:
    """The parts of a folder, in their order.

    Raises:
        InvalidRequest: there is none, one cannot be read, they are of several sources or vector spaces, or what they
            say of themselves is no text that an import takes.
    """
    found = [(path, _part(path)) for path in _candidates(root)]
    if alien := [path.name for path, part in found if part is None]:
        raise InvalidRequest(f"{alien[0]!r} was not written by `constellate bulk`, or is damaged")
    mine = [part for _, part in found if part is not None]
    if not mine:
        raise InvalidRequest("the folder has no parts of `constellate bulk` (part-00000.parquet, …)")
    for key in ("source", "space_key"):
        if len({part.marks[key] for part in mine}) > 1:
            raise InvalidRequest(f"the parts have several values of {key!r}; run `constellate bulk` to its end")
    _require_usable(mine[0].marks)
    return mine


def images_root(found: list[Part], roots: Roots) -> Path | Url:
    """The folder or URL that the names in the parts are relative to: the run's source, or the folder of that file.

    Links of a folder are resolved only if that shows nothing of what lies outside the roots.
    """
    source = found[0].marks["source"]
    if os.path.splitext(os.fsencode(source))[1].lower() in _SUFFIXES:
        source = source.rpartition("/")[0]
    if is_url(source):
        return parse(source)
    named, real = Path(os.path.abspath(source)), Path(os.path.realpath(source))
    return real if is_below(named, roots) or is_below(real, roots) else named


def vectors(found: list[Part]) -> PartsVectors:
    """What an import of the parts needs to know."""
    marks = found[0].marks
    folder = found[0].path.parent
    made_of = [(part.n_rows, *(part.marks[key] for key in ("inputs", "space_key", "model_name"))) for part in found]
    digest = hashlib.sha256(repr(made_of).encode()).hexdigest()
    total = sum(part.n_rows for part in found)
    return PartsVectors(str(folder), marks["model_name"], marks["space_key"], total, digest)


def images(found: list[Part], allows: Callable[[Url], bool], notices: list[str]) -> Iterator[SourceFile]:
    """The images that the parts name, in their order, with the parts' other columns as values.

    Raises:
        InvalidRequest: a part is damaged, or has no column of file names or an unusable one.
    """
    told: list[str] = []
    for part in found:
        if part.n_rows:
            with closing(open_listing(part.path)) as file:
                yield from manifest.images(file, part.path.name, allows, notices=told)
    notices.extend(dict.fromkeys(notice for notice in told if not _EXPECTED.fullmatch(notice)))


def _require_usable(marks: dict[str, str]) -> None:
    """Check what a part says of itself, since anybody may have written it. Raises `InvalidRequest`."""
    for key in ("model_name", "space_key"):
        if len(marks[key]) > MAX_TEXT or not marks[key].isprintable():
            raise InvalidRequest(f"the parts' {key} is not a printable text of at most {MAX_TEXT} characters")
    if len(marks["source"]) > MAX_PATH_CHARS or "\0" in marks["source"]:
        raise InvalidRequest(f"the parts' source is not a path of at most {MAX_PATH_CHARS} characters without NUL")


def _candidates(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("part-*.parquet") if _PART.fullmatch(path.name))


def _part(path: Path) -> Part | None:
    """The part in a file, or None if another program wrote it."""
    try:
        with closing(open_listing(path)) as file:
            metadata = Table(file, path.name).metadata
    except InvalidRequest:
        return None
    noted = metadata.metadata or {}
    marks = {key: noted.get(key.encode(), b"").decode(errors="replace") for key in _KEYS}
    return Part(path, metadata.num_rows, marks) if all(marks.values()) else None
