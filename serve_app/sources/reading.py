"""Reads the bytes of one image from a folder, a bucket, the web, a tar or a Parquet file.

Files in folders are examined and read in their present state. All other images keep the size and mark of the last
listing until the next rescan, so a job makes one request per image to a bucket and no others. Their vectors are stored
with the listed mark; when a later listing has another mark, the image is read again.
"""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

from serve_app.config import Settings
from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.records import FileStamp, SourceFile
from serve_app.sources import files
from serve_app.sources.cloud import Bucket
from serve_app.sources.files import UNKNOWN
from serve_app.sources.image_table import RowGroups
from serve_app.sources.roots import require_root
from serve_app.sources.web import Web
from serve_app.sources.webdataset import check_header
from serve_app.urls import WEB, Url, is_url, parse

TAR_HEADER_BYTES = 512


class Place(NamedTuple):
    """The place of an image in a container.

    In a tar, `at` is the offset of the image's bytes and `within` is their number. In a Parquet file, they are the row
    group and the row in the group. `container` is a file name below the root. `mark` tells the member's header or the
    Parquet file's footer from another one; it is empty where an older version of the service listed the image.
    """

    kind: str
    at: int
    within: int
    container: str
    mark: str = ""

    def __str__(self) -> str:
        kind = f"{self.kind}:{self.mark}" if self.mark else self.kind
        return f"{kind} {self.at} {self.within} {self.container}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that `str` turned into this text."""
        kind, at, within, container = text.split(" ", 3)
        kind, _, mark = kind.partition(":")
        return cls(kind, int(at), int(within), container, mark)


class Reader:
    """Reads images. A process shares one among its threads, because it keeps connections and row groups."""

    def __init__(self, settings: Settings) -> None:
        self._roots = settings.dataset_roots
        self._web = Web(settings.dataset_roots, allow_private=settings.allow_private_urls)
        self._row_groups = RowGroups()

    def read(self, root: str, file: SourceFile, *, max_bytes: int) -> tuple[bytes, FileStamp]:
        """Read an image once; the stamp's hash belongs to exactly the returned bytes.

        Raises:
            RefusedImage: the image cannot be read; see `RefusedImage` for the reasons.
            OutsideRoots: the dataset is not below the roots any more.
            Unavailable: this process has too many files open.
        """
        require_root(root, self._roots)
        if file.place is None and not is_url(root) and not is_url(file.file_name):
            return files.read_file(root, file.file_name, max_bytes=max_bytes)
        data = self._bytes(root, file, max_bytes)
        if not data:
            raise RefusedImage("empty: the file holds no bytes")
        # A later job compares the stamp with the listing, and a row of a Parquet file is listed without its size.
        size_bytes = file.size_bytes if file.place is not None else len(data)
        return data, FileStamp(hashlib.sha256(data).hexdigest(), size_bytes, file.mtime_ns)

    def examine(self, root: str, listed: Sequence[SourceFile]) -> list[tuple[int, int]]:
        """The size and change mark of each file: the present ones for files in folders, the listed ones for others.

        Raises:
            OutsideRoots: the dataset is not below the roots any more.
            Unavailable: this process has too many files open.
        """
        require_root(root, self._roots)
        if is_url(root):
            return [(file.size_bytes, file.mtime_ns) for file in listed]
        own = [file.place is None and not is_url(file.file_name) for file in listed]
        names = [file.file_name for file, is_own in zip(listed, own, strict=True) if is_own]
        stats = iter(files.stat_files(root, names))
        return [
            next(stats) if is_own else (file.size_bytes, file.mtime_ns)
            for file, is_own in zip(listed, own, strict=True)
        ]

    def is_any_there(self, root: str, listed: Sequence[SourceFile]) -> bool:
        """Ask the storage whether at least one of the files, or its container, can be examined now.

        Raises:
            OutsideRoots: the dataset is not below the roots any more.
        """
        require_root(root, self._roots)
        names = {Place.parse(file.place).container if file.place else file.file_name for file in listed}
        below = sorted(name for name in names if not is_url(name))
        there = _stat_below(root, below, self._web)
        there += [_stat(parse(name, with_query=True), self._web) for name in sorted(names.difference(below))]
        return any(stat != UNKNOWN for stat in there)

    def _bytes(self, root: str, file: SourceFile, max_bytes: int) -> bytes:
        if file.place is not None:
            place = Place.parse(file.place)
            if place.kind == "row":
                key = (root, place.container, file.mtime_ns)
                data = self._row_groups.image(
                    key, lambda: _open_below(root, place.container), place.at, place.within, place.mark
                )
                files.check_size(len(data), max_bytes, what="image")
                return data
            return _member(root, place, max_bytes)
        if not is_url(file.file_name):
            url = _url(root)
            if url.scheme not in WEB:
                return _bucket(root).read(file.file_name, max_bytes=max_bytes)
            return self._web.read(url.child(file.file_name), max_bytes=max_bytes)
        url = _url(file.file_name)
        if url.scheme in WEB:
            return self._web.read(url, max_bytes=max_bytes)
        if not self._web.allows(url):
            raise RefusedImage("permission_denied: the URL is not below DATASET_ROOTS")
        return _bucket(str(url.parent)).read(url.name, max_bytes=max_bytes)


def open_container(root: Path | Url, name: str) -> IO[bytes]:
    """Open a tar or Parquet file of a dataset for reading at any position.

    Raises:
        InvalidRequest: the file cannot be opened.
    """
    if isinstance(root, Url):
        return _bucket(str(root)).open(name)
    try:
        return os.fdopen(files.open_beneath(str(root), name), "rb")
    except RefusedImage as error:
        raise InvalidRequest(f"{name!r} cannot be opened: {error.detail}") from None


def _open_below(root: str, name: str) -> IO[bytes]:
    """Do what `open_container` does, but raise `RefusedImage`, which becomes a skip."""
    if not is_url(root):
        return os.fdopen(files.open_beneath(root, name), "rb")
    try:
        return _bucket(root).open(name)
    except InvalidRequest as error:
        raise RefusedImage(f"unreachable: {error.detail}") from None


def _member(root: str, place: Place, max_bytes: int) -> bytes:
    """The bytes of a tar's member; they are read together with the header before them."""
    files.check_size(place.within, max_bytes, what="image")
    start, n_bytes = place.at - TAR_HEADER_BYTES, place.within + TAR_HEADER_BYTES
    if is_url(root):
        both = _bucket(root).read(place.container, start=start, n_bytes=n_bytes, max_bytes=n_bytes)
    else:
        both = files.read_part(root, place.container, start, n_bytes)
    if len(both) < n_bytes:
        raise RefusedImage("changed: its tar is shorter than when it was listed; rescan the dataset")
    check_header(both[:TAR_HEADER_BYTES], place.within, place.mark)
    return both[TAR_HEADER_BYTES:]


def _stat_below(root: str, names: list[str], web: Web) -> list[tuple[int, int]]:
    if not is_url(root):
        return files.stat_files(root, names)
    url = parse(root)
    if url.scheme in WEB:
        return [web.stat(url.child(name)) for name in names]
    return _bucket(root).stat(names)


def _stat(url: Url, web: Web) -> tuple[int, int]:
    return web.stat(url) if url.scheme in WEB else _bucket(str(url.parent)).stat([url.name])[0]


def _url(text: str) -> Url:
    try:
        return parse(text, with_query=True)
    except InvalidRequest as error:
        raise RefusedImage(f"unsafe_name: {error.detail}") from None


@lru_cache(maxsize=1024)
def _bucket(url: str) -> Bucket:
    return Bucket(parse(url))
