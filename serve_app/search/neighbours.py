"""Answers questions about a dataset's vectors from a normalised copy in memory.

The copy is read once through the writer and used until the dataset's vectors or samples change, so each question costs
the writer one small query. This module knows ids and names; the numerics are in `similarity` and `curation`.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import Conflict, Overloaded, SampleNotFound
from serve_app.records import Neighbour
from serve_app.search.curation import diverse, near_duplicates, outlier_scores
from serve_app.search.pairs import OnStep
from serve_app.search.similarity import Index
from serve_app.services import Writer
from serve_app.store.vectors import Vectors

MEMORY_BYTES = 4 * 2**30
"""The limit for all matrices in memory; the least recently used go first. A set of 1,000,000 × 768 takes 3.1 GB."""

LONG_AT_ONCE = 2
"""How many questions that compare all rows may be computed at a time; each takes all cores for its time."""

R = TypeVar("R")


class _Abandoned(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class LoadedVectors:
    """One version of a dataset's vectors; row i of the index belongs to element i of the lists."""

    version: str
    space_key: str
    index: Index
    sample_ids: list[str]
    file_names: list[str]
    labels: list[str | None]
    content_hashes: list[str]
    row_of: dict[str, int]

    def neighbours(self, rows: Iterable[int], scores: Iterable[float]) -> list[Neighbour]:
        """The samples of these rows, with their scores."""
        return [
            Neighbour(self.sample_ids[row], self.file_names[row], self.labels[row], float(score))
            for row, score in zip(rows, scores, strict=True)
        ]


class Neighbours:
    """The questions, as public methods; `services.Searcher` asks them by name.

    Each method raises `DatasetNotFound`, `NoEmbeddings` for a dataset without vectors, and `Unavailable` if the writer
    does. Scores are cosines.
    """

    def __init__(self, writer: Writer, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._writer = writer
        self._memory_bytes = memory_bytes
        self._loaded: OrderedDict[str, LoadedVectors] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}
        self._n_long = 0

    async def similar(self, dataset_id: str, sample_id: str, limit: int) -> list[Neighbour]:
        """The most similar samples, best first, without the sample itself.

        Raises:
            SampleNotFound: the sample has no vector.
        """
        loaded = await self._current(dataset_id)
        row = loaded.row_of.get(sample_id)
        if row is None:
            raise SampleNotFound("this sample has no vector: it was skipped, or added after the last embedding job")
        query = loaded.index.matrix[row]
        rows, scores = await asyncio.to_thread(loaded.index.top_k, query, limit, exclude=row)
        return loaded.neighbours(rows, scores)

    async def search(self, dataset_id: str, query: NDArray[np.float32], space_key: str, limit: int) -> list[Neighbour]:
        """The samples most similar to a (D,) query vector of the same space, best first.

        Raises:
            Conflict: the dataset's vectors belong to another space.
        """
        loaded = await self._current(dataset_id)
        if loaded.space_key != space_key:
            raise Conflict(
                "the dataset's vectors come from another model or precision than the query; generate them again"
            )
        rows, scores = await asyncio.to_thread(loaded.index.top_k, query, limit)
        return loaded.neighbours(rows, scores)

    async def duplicates(self, dataset_id: str, threshold: float) -> list[list[Neighbour]]:
        """Groups of samples linked by a cosine of at least `threshold`, largest group first.

        `score` is the cosine of the sample's best link in the group.
        """
        loaded = await self._current(dataset_id)
        groups = await self._long(
            lambda on_step: near_duplicates(loaded.index.matrix, threshold, loaded.content_hashes, on_step=on_step)
        )
        return [loaded.neighbours(*zip(*group, strict=True)) for group in groups]

    async def outliers(self, dataset_id: str, k: int, limit: int) -> list[Neighbour]:
        """The samples with the lowest mean similarity to their `k` nearest neighbours, lowest first."""
        loaded = await self._current(dataset_id)
        scores = await self._long(lambda on_step: outlier_scores(loaded.index.matrix, k, on_step=on_step))
        rows = np.argsort(scores, kind="stable")[:limit]
        return loaded.neighbours(rows, scores[rows])

    async def diverse(self, dataset_id: str, n: int) -> list[Neighbour]:
        """`n` samples that cover the dataset (k-centre greedy), in the order of choice.

        `score` is the similarity to the nearest sample chosen before; the first sample scores 0.
        """
        loaded = await self._current(dataset_id)
        rows = await self._long(lambda on_step: diverse(loaded.index.matrix, n, on_step=on_step))
        chosen = loaded.index.matrix[rows]
        scores = [float((chosen[:i] @ chosen[i]).max()) if i else 0.0 for i in range(len(rows))]
        return loaded.neighbours(rows, scores)

    async def forget(self, dataset_id: str) -> None:
        """Free the memory of a deleted dataset; unknown ids are ignored."""
        self._loaded.pop(dataset_id, None)
        self._loading.pop(dataset_id, None)

    async def _long(self, work: Callable[[OnStep], R]) -> R:
        """Run a long computation in a thread; it ends at its next step when the caller has gone.

        Raises:
            Overloaded: `LONG_AT_ONCE` computations run, those of callers that have just gone included.
        """
        if self._n_long >= LONG_AT_ONCE:
            raise Overloaded("the searcher is comparing all images for others; try again later")
        is_abandoned = threading.Event()

        def on_step(done: int, total: int) -> None:
            if is_abandoned.is_set():
                raise _Abandoned

        self._n_long += 1
        computing = asyncio.get_running_loop().run_in_executor(None, work, on_step)
        computing.add_done_callback(self._over)
        try:
            return await asyncio.shield(computing)
        finally:
            is_abandoned.set()

    def _over(self, computing: asyncio.Future[R]) -> None:
        self._n_long -= 1
        computing.exception()  # or asyncio would log that nobody retrieved it

    async def _current(self, dataset_id: str) -> LoadedVectors:
        """The dataset's present vectors; each version is loaded at most once, however many callers ask."""
        version = await self._writer.ask(Vectors.version, dataset_id)
        async with self._loading.setdefault(dataset_id, asyncio.Lock()):
            loaded = self._loaded.get(dataset_id)
            if loaded is None or loaded.version != version:
                loaded = await self._load(dataset_id)
                self._loaded[dataset_id] = loaded
            self._loaded.move_to_end(dataset_id)
            self._forget_the_least_used()
        return loaded

    async def _load(self, dataset_id: str) -> LoadedVectors:
        self._loaded.pop(dataset_id, None)
        found = await self._writer.ask(Vectors.read, dataset_id)
        return LoadedVectors(
            version=found.version,
            space_key=found.space_key,
            index=await asyncio.to_thread(Index, found.vectors),
            sample_ids=found.sample_ids,
            file_names=found.file_names,
            labels=found.labels,
            content_hashes=found.content_hashes,
            row_of={sample_id: row for row, sample_id in enumerate(found.sample_ids)},
        )

    def _forget_the_least_used(self) -> None:
        while len(self._loaded) > 1 and self._held_bytes() > self._memory_bytes:
            self._loaded.popitem(last=False)

    def _held_bytes(self) -> int:
        return sum(loaded.index.matrix.nbytes for loaded in self._loaded.values())
