"""Lists a dataset's source while the client waits; the listing takes effect as a whole or not at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from serve_app.config import Settings
from serve_app.errors import AsyncNeeded, ServiceError
from serve_app.jobs.listing import Lister, Listing
from serve_app.records import Dataset, ScanChange
from serve_app.services import Writer
from serve_app.sources.detection import WantedFormat
from serve_app.store.datasets import Datasets

MAX_WAITED_FILES = 100_000
"""The files that a client may wait for: some ten seconds of listing. A job lists more."""


async def register(
    writer: Writer, settings: Settings, *, name: str, root: str, format: WantedFormat, annotations: str | None
) -> Dataset:
    """List a folder, a bucket's folder, or the images of a manifest, tar or Parquet file, and make it a dataset.

    If `root` is such a file, its folder is the root and the file is the annotation file.

    Raises:
        NameTaken: a dataset has this name; the message is its id.
        OutsideRoots: the folder or the annotation file is not below a configured root.
        InvalidRequest: the folder or the annotation file cannot be used, or everything in it was left out.
        AsyncNeeded: there are more than `MAX_WAITED_FILES` files.
    """
    lister = Lister(settings)
    folder, file = await asyncio.to_thread(lister.place, root, annotations)
    listing = await asyncio.to_thread(lister.new, str(folder), None if file is None else str(file), format)
    async with _scanned(writer, listing) as scan_id:
        found = await asyncio.to_thread(listing.found)
        return await writer.ask(
            Datasets.register,
            scan_id,
            name=name,
            root=found.root,
            format=found.format,
            annotations=found.annotations,
            columns=found.columns,
            notices=found.notices,
            vectors=found.vectors,
        )


async def rescan(writer: Writer, settings: Settings, dataset: Dataset) -> ScanChange:
    """List a dataset's folder again.

    Raises:
        JobRunning: a job is running; the message is its id.
        OutsideRoots: the folder was moved out of the roots, or the roots were changed.
        InvalidRequest: the folder or the annotation file cannot be used.
        AsyncNeeded: there are more than `MAX_WAITED_FILES` files.
    """
    listing = await asyncio.to_thread(Lister(settings).again, dataset)
    async with _scanned(writer, listing) as scan_id:
        found = await asyncio.to_thread(listing.found)
        return await writer.ask(Datasets.rescan, scan_id, dataset.id, found.columns, found.notices, found.vectors)


@asynccontextmanager
async def _scanned(writer: Writer, listing: Listing) -> AsyncIterator[str]:
    """The id of a scan of the listing for the block; the scan is dropped if the block fails."""
    scan_id = await writer.ask(Datasets.begin_scan)
    try:
        pages = listing.pages()
        number = 0
        while page := await asyncio.to_thread(next, pages, None):
            if listing.n_files > MAX_WAITED_FILES:
                raise AsyncNeeded(
                    f"there are more than {MAX_WAITED_FILES:,} files: send the header 'Prefer: respond-async', and a "
                    "job lists them"
                )
            await writer.ask(Datasets.put_scan, scan_id, number, page)
            number += 1
        yield scan_id
    except BaseException:
        # A client that leaves cancels this task, but its scan must still be dropped. If the store is away, the next
        # writer drops the scan.
        with suppress(ServiceError):
            await asyncio.shield(writer.ask(Datasets.drop_scan, scan_id))
        raise
