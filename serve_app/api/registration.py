"""Lists a dataset's folder into the store, page by page; the listing takes effect as a whole or not at all."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import InvalidRequest, ServiceError
from serve_app.jobs.source_columns import SourceColumns
from serve_app.records import Dataset, DatasetFormat, ScanChange
from serve_app.services import Writer
from serve_app.sources.detection import FILE_SUFFIXES, WantedFormat
from serve_app.sources.roots import check_annotations, check_root
from serve_app.sources.web import Web
from serve_app.store.column_rows import GivenColumns
from serve_app.store.datasets import MAX_NOTICES, Datasets
from serve_app.urls import Url, is_url


class Scan(NamedTuple):
    """A finished listing in the store: its id there, the number of files that it lists, and the source's columns."""

    id: str
    n_files: int
    columns: GivenColumns | None


async def register(
    writer: Writer, settings: Settings, *, name: str, root: str, format: WantedFormat, annotations: str | None
) -> Dataset:
    """List a folder, a bucket's folder, or the images of a manifest, tar or Parquet file, and make it a dataset.

    If `root` is such a file, its folder is the root and the file is the annotation file.

    Raises:
        NameTaken: a dataset has this name; the message is its id.
        OutsideRoots: the folder or the annotation file is not below a configured root.
        InvalidRequest: the folder or the annotation file cannot be used, or everything in it was left out.
    """
    if annotations is None:
        root, annotations = _split_file(root)
    web = Web(settings.dataset_roots, allow_private=settings.allow_private_urls)
    folder, file = await asyncio.to_thread(_checked, settings, root, annotations)
    notices: list[str] = []
    found, file = await asyncio.to_thread(sources.detect, folder, file, format, web, notices)
    async with _scanned(writer, folder, found, file, web, notices) as scan:
        if notices and not scan.n_files:
            raise InvalidRequest(f"no images were found; {'; '.join(notices[:MAX_NOTICES])}")
        dataset = await writer.ask(
            Datasets.register,
            scan.id,
            name=name,
            root=str(folder),
            format=found,
            annotations=str(file) if file is not None else None,
            columns=scan.columns,
            notices=notices,
        )
    return dataset


async def rescan(writer: Writer, settings: Settings, dataset: Dataset) -> ScanChange:
    """List a dataset's folder again.

    Raises:
        JobRunning: a job is running; the message is its id.
        OutsideRoots: the folder was moved out of the roots, or the roots were changed.
        InvalidRequest: the folder or the annotation file cannot be used.
    """
    folder, file = await asyncio.to_thread(_checked, settings, dataset.root, dataset.annotations)
    web = Web(settings.dataset_roots, allow_private=settings.allow_private_urls)
    notices: list[str] = []
    if file is None:
        with suppress(InvalidRequest):  # the format stays; only what is set aside is of interest
            await asyncio.to_thread(sources.detect, folder, None, "auto", web, notices)
    async with _scanned(writer, folder, dataset.format, file, web, notices) as scan:
        return await writer.ask(Datasets.rescan, scan.id, dataset.id, scan.columns, notices)


def _split_file(root: str) -> tuple[str, str | None]:
    """Split a root that is a manifest, tar or Parquet file into its folder and the file's name."""
    folder, _, name = root.rstrip("/").rpartition("/")
    if os.path.splitext(name)[1].lower() not in FILE_SUFFIXES or (not is_url(root) and os.path.isdir(root)):
        return root, None
    return (folder or ("/" if root.startswith("/") else ".")), name


def _checked(settings: Settings, root: str, annotations: str | None) -> tuple[Path | Url, Path | Url | None]:
    roots = settings.dataset_roots
    folder = check_root(root, roots)
    return folder, check_annotations(annotations, folder, roots) if annotations is not None else None


@asynccontextmanager
async def _scanned(
    writer: Writer,
    root: Path | Url,
    format: DatasetFormat,
    annotations: Path | Url | None,
    web: Web,
    notices: list[str],
) -> AsyncIterator[Scan]:
    """Scan the folder for the block; the scan is dropped if the block fails."""
    scan_id = await writer.ask(Datasets.begin_scan)
    try:
        pages = sources.scan(root, format, annotations, web=web, notices=notices)
        columns = SourceColumns()
        number = n_files = 0
        while page := await asyncio.to_thread(next, pages, None):
            await writer.ask(Datasets.put_scan, scan_id, number, await asyncio.to_thread(columns.take, page))
            number += 1
            n_files += len(page)
        gathered = await asyncio.to_thread(columns.gathered)
        notices.extend(columns.notices())
        yield Scan(scan_id, n_files, gathered)
    except BaseException:
        # A client that leaves cancels this task, but its scan must still be dropped. If the store is away, the next
        # writer drops the scan.
        with suppress(ServiceError):
            await asyncio.shield(writer.ask(Datasets.drop_scan, scan_id))
        raise
