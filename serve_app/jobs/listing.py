"""A walk over a dataset's source: where it lies, what format it has, its files page by page, its columns and notices.

This module knows sources. It does not know who waits for the listing: a client, or nobody.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import InvalidRequest
from serve_app.jobs.source_columns import SourceColumns
from serve_app.records import Dataset, DatasetFormat, SourceFile
from serve_app.sources import bulk
from serve_app.sources.bulk import Part
from serve_app.sources.detection import FILE_SUFFIXES, WantedFormat
from serve_app.sources.roots import check_annotations, check_root
from serve_app.sources.web import Web
from serve_app.store.scans import MAX_NOTICES, Listed
from serve_app.urls import Url, is_url

PAGE_FILES = 10_000
"""A page is one commit: larger ones spare commits, and progress still moves several times a second."""

Place = tuple[Path | Url, Path | Url | None]
"""The folder and the annotation file, as real paths or URLs below the roots."""


class Listing:
    """One walk. `pages` reads files and blocks; `n_files` counts those that it has given."""

    def __init__(
        self, place: Place, format: DatasetFormat, web: Web, notices: list[str], *, may_be_empty: bool
    ) -> None:
        self._root, self._annotations = place
        self._format = format
        self._web = web
        self._notices = notices
        self._may_be_empty = may_be_empty
        self._columns = SourceColumns()
        self.n_files = 0

    def pages(self) -> Iterator[list[SourceFile]]:
        """The files, `PAGE_FILES` at a time, without the values that become columns.

        Raises:
            InvalidRequest: a folder or file cannot be used, or everything was left out and that is not allowed.
        """
        for page in sources.scan(
            self._root, self._format, self._annotations, page_size=PAGE_FILES, web=self._web, notices=self._notices
        ):
            self.n_files += len(page)
            yield self._columns.take(page)
        if self._notices and not self.n_files and not self._may_be_empty:
            raise InvalidRequest(f"no images were found; {'; '.join(self._notices[:MAX_NOTICES])}")

    def found(self) -> Listed:
        """What the walk found besides files. Call this once, after the last page; it blocks."""
        columns = self._columns.gathered()
        notices = (*self._notices, *self._columns.notices())
        annotations = None if self._annotations is None else str(self._annotations)
        vectors = bulk.vectors(bulk.parts(Path(annotations or ""))) if self._format == "bulk" else None
        return Listed(str(self._root), self._format, annotations, columns, notices, vectors)


class Lister:
    """Begins walks below the dataset roots. Its methods read files and block."""

    def __init__(self, settings: Settings) -> None:
        self._roots = settings.dataset_roots
        self._web = Web(settings.dataset_roots, allow_private=settings.allow_private_urls)

    def place(self, root: str, annotations: str | None) -> Place:
        """Where a new dataset is to lie. If `root` is a file that can be one, its folder is the root.

        Raises:
            OutsideRoots: the folder or the annotation file is not below a configured root.
            InvalidRequest: the folder or the annotation file cannot be used.
        """
        return self._checked(*(_split_file(root) if annotations is None else (root, annotations)))

    def place_of(self, dataset: Dataset) -> Place:
        """Where a dataset lies. Raises as `place`, where the folder was moved or the roots were changed."""
        if dataset.format == "bulk":  # the images may lie where the service may not read
            parts, _ = self._checked(dataset.annotations or "", None)
            return bulk.images_root(bulk.parts(Path(str(parts))), self._roots), parts
        return self._checked(dataset.root, dataset.annotations)

    def new(self, root: str, annotations: str | None, wanted: WantedFormat) -> Listing:
        """The walk over what `place` returned, checked anew, with its format found out.

        Raises:
            OutsideRoots: as `place`.
            InvalidRequest: as `place`, or no format fits.
        """
        notices: list[str] = []
        folder, file = self._checked(root, annotations)
        format, file = sources.detect(folder, file, wanted, self._web, notices)
        if format == "bulk":
            folder = bulk.images_root(bulk.parts(folder), self._roots) if isinstance(folder, Path) else folder
        return Listing((folder, file), format, self._web, notices, may_be_empty=False)

    def again(self, dataset: Dataset) -> Listing:
        """The walk over a dataset's source as it is now; the format stays.

        Raises:
            OutsideRoots: the folder was moved out of the roots, or the roots were changed.
            InvalidRequest: the folder or the annotation file cannot be used.
        """
        notices: list[str] = []
        folder, file = self.place_of(dataset)
        if file is None:
            with suppress(InvalidRequest):  # only what is set aside is of interest
                sources.detect(folder, None, "auto", self._web, notices)
        return Listing((folder, file), dataset.format, self._web, notices, may_be_empty=True)

    def parts(self, folder: str) -> list[Part]:
        """The parts of `constellate bulk` in a dataset's folder.

        Raises:
            OutsideRoots: the folder was moved out of the roots, or the roots were changed.
            InvalidRequest: the folder or a part cannot be used.
        """
        return bulk.parts(Path(str(check_root(folder, self._roots))))

    def _checked(self, root: str, annotations: str | None) -> Place:
        folder = check_root(root, self._roots)
        return folder, check_annotations(annotations, folder, self._roots) if annotations is not None else None


def _split_file(root: str) -> tuple[str, str | None]:
    """Split a root that is a manifest, tar or Parquet file into its folder and the file's name."""
    folder, _, name = root.rstrip("/").rpartition("/")
    if os.path.splitext(name)[1].lower() not in FILE_SUFFIXES or (not is_url(root) and os.path.isdir(root)):
        return root, None
    return (folder or ("/" if root.startswith("/") else ".")), name
