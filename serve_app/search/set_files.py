"""The sets that this machine has as files, each written from pages of the writer.

A set is written when its job has ended, or when it is first asked for. The writer answers pages only, so its memory
does not grow with a set, and neither does a reader's: what it needs beside the map of the file is the list of names.
Processes of one machine share the folder.
"""

import asyncio
import shutil
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from serve_app.errors import Conflict, DatasetNotFound, NoEmbeddings, Unavailable
from serve_app.records import VectorSet
from serve_app.search.graph_file import GraphFile, graphs_in, largest_graph
from serve_app.search.part import Part
from serve_app.search.set_file import Draft, SetFile, is_abandoned
from serve_app.services import Writer
from serve_app.store.datasets import Datasets
from serve_app.store.vectors import Vectors

P = ParamSpec("P")

PAGE_BYTES = 2**24
"""The size of a page of vectors: DuckDB's memory must hold several."""
NAMES_PAGE_ROWS = 20_000
MAX_TRIES = 3
"""How often a set that changes while it is read is read again before the question fails."""

PARTIAL = ".partial"

Page = tuple[bytes, int | None]

_Key = tuple[str, str]
"""A dataset and a model."""


class SetFiles:
    """A folder of sets; the present version of each is read once, however many callers ask."""

    def __init__(self, folder: Path, writer: Writer) -> None:
        self._folder = folder
        self._writer = writer
        self._open: dict[_Key, SetFile] = {}
        self._graphs: dict[str, GraphFile] = {}  # by the set's version
        self._opening: dict[_Key, asyncio.Lock] = {}

    async def current(self, dataset_id: str, model: str | None = None) -> SetFile:
        """A dataset's vectors of a model, or those made last. Other sets are answered while this one is read.

        Raises:
            DatasetNotFound, NoEmbeddings: there are none; their files are removed.
            Conflict: the vectors changed each time that they were read.
            Unavailable: the writer is away, or the disk is full.
        """
        for _ in range(MAX_TRIES):
            try:
                described = await self._writer.ask(Vectors.current, dataset_id, model)
            except (DatasetNotFound, NoEmbeddings):
                await self.forget(dataset_id)
                raise
            async with self._opening.setdefault((dataset_id, described.model_name), asyncio.Lock()):
                try:
                    return await self._at(described)
                except Conflict as error:
                    why = error
        raise why

    async def part(self, dataset_id: str, where: str | None, model: str | None = None) -> Part:
        """The vectors that `current` gives, of the samples that a filter chooses, or of all if there is none.

        Raises:
            InvalidFilter: `where` is no filter over the dataset's columns.
            DatasetNotFound, NoEmbeddings, Conflict, Unavailable: as `current`.
        """
        for _ in range(MAX_TRIES):
            found = await self.current(dataset_id, model)
            if where is None:
                return Part(found, None, self._folder)
            try:
                bits = await self._writer.ask(Vectors.matching, dataset_id, version=found.version, where=where)
            except Conflict as error:
                why = error
            else:
                return Part(found, await asyncio.to_thread(found.rows_in, bits), self._folder)
        raise why

    async def graph(self, found: SetFile) -> GraphFile | None:
        """The graph of a set; None where nobody has made it, or its file was lost."""
        return await asyncio.to_thread(self._graph, found)

    async def forget(self, dataset_id: str) -> None:
        """Remove the files of those sets of a dataset that are gone; unknown ids are ignored."""
        listed = await asyncio.to_thread(self._listed)
        versions = set(await self._writer.ask(Vectors.versions, dataset_id))
        self._close_all(lambda key, found: key[0] == dataset_id and found.version not in versions)
        await asyncio.to_thread(self._remove_all_but, versions, dataset_id, listed)

    async def _at(self, described: VectorSet) -> SetFile:
        """The set of this version: open, on disk, or written now."""
        key = described.dataset_id, described.model_name
        found = self._open.get(key)
        if found is not None and found.version == described.version and await asyncio.to_thread(found.folder.is_dir):
            return found
        folder = self._folder / described.dataset_id / described.version
        self._close(key)
        found = await asyncio.to_thread(SetFile.open, folder)
        await self._sweep(described)  # before the set is written, because the others' room may be needed
        if found is None or found.version != described.version:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            found = await self._write(described, folder)
        self._open[key] = found
        return found

    async def _write(self, described: VectorSet, folder: Path) -> SetFile:
        partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            draft = await asyncio.to_thread(Draft, partial, described)
            try:
                async with aclosing(self._pages(Vectors.names, described, NAMES_PAGE_ROWS)) as pages:
                    async for page in pages:
                        await asyncio.to_thread(draft.names, page)
                await asyncio.to_thread(draft.start)
                page_rows = max(1, PAGE_BYTES // (4 * described.dimension))
                async with aclosing(self._pages(Vectors.rows, described, page_rows)) as pages:
                    async for page in pages:
                        await asyncio.to_thread(draft.put, page)
                await asyncio.to_thread(draft.finish)
                await asyncio.to_thread(draft.publish, folder)
            finally:
                draft.close()
        except OSError as error:
            raise Unavailable(f"The vectors cannot be kept in a file to search: {error.strerror}.") from error
        found = await asyncio.to_thread(SetFile.open, folder, is_new=True)
        if found is None:
            raise Unavailable("The file of the vectors was damaged while it was written; ask again.")
        return found

    async def _pages(
        self, method: Callable[Concatenate[Any, P], Page], described: VectorSet, limit: int
    ) -> AsyncGenerator[bytes]:
        """The pages in their order; each is asked for before the caller has done with the one before it."""

        def asked_for(after: int) -> "asyncio.Task[Page]":
            ask: Any = self._writer.ask
            asked = ask(method, described.dataset_id, version=described.version, after=after, limit=limit)
            task: asyncio.Task[Page] = asyncio.ensure_future(asked)
            # When the caller has stopped, nobody reads the error, and asyncio would log it as never retrieved.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return task

        coming = asked_for(-1)
        try:
            while True:
                page, after = await coming
                if after is None:
                    yield page
                    return
                coming = asked_for(after)
                yield page
        finally:
            coming.cancel()

    async def _sweep(self, described: VectorSet) -> None:
        """Remove older versions of this dataset's sets, datasets that are gone, and drafts whose process died."""
        listed = await asyncio.to_thread(self._listed)
        known = {dataset.id for dataset in await self._writer.ask(Datasets.all)}
        versions = {described.version, *await self._writer.ask(Vectors.versions, described.dataset_id)}
        self._close_all(
            lambda key, found: key[0] not in known or (key[0] == described.dataset_id and found.version not in versions)
        )
        await asyncio.to_thread(self._remove_unknown, known, listed)
        await asyncio.to_thread(self._remove_all_but, versions, described.dataset_id, listed)

    def _listed(self) -> dict[str, list[Path]]:
        """The folders of each dataset, read before the writer is asked: what is published after that is not swept."""
        return {dataset.name: list(dataset.glob("*")) for dataset in self._folder.glob("*")}

    def _close_all(self, is_gone: Callable[[_Key, SetFile], bool]) -> None:
        for key in [key for key, found in self._open.items() if is_gone(key, found)]:
            self._close(key)

    def _close(self, key: _Key) -> None:
        """Let go of a set and its graph, whose maps would keep removed files on disk."""
        self._open.pop(key, None)
        kept = {found.version for found in self._open.values()}
        for version in [version for version in self._graphs.copy() if version not in kept]:
            self._graphs.pop(version, None)

    def _graph(self, found: SetFile) -> GraphFile | None:
        known = self._graphs.get(found.version)
        if known is None or [known.folder] != graphs_in(found.folder)[:1]:
            known = largest_graph(found.folder)
        if known is None:
            self._graphs.pop(found.version, None)
        else:
            self._graphs[found.version] = known
        return known

    def _remove_unknown(self, known: set[str], listed: dict[str, list[Path]]) -> None:
        for dataset_id in listed.keys() - known:
            shutil.rmtree(self._folder / dataset_id, ignore_errors=True)

    def _remove_all_but(self, versions: set[str], dataset_id: str, listed: dict[str, list[Path]]) -> None:
        # An id may be any text that a client sent, "..", too: only what the folder lists is removed.
        if dataset_id not in listed:
            return
        for version in listed[dataset_id]:
            is_draft = version.name.endswith(PARTIAL)
            if is_abandoned(version) if is_draft else version.name not in versions:
                shutil.rmtree(version, ignore_errors=True)
        if not versions:
            with suppress(OSError):  # a set that came meanwhile is in it
                (self._folder / dataset_id).rmdir()
