"""Answers questions about a dataset's vectors from a file that is mapped into memory.

The file is written once from pages of the writer and used until the dataset's vectors or samples change, so each
question costs the writer one small query. This module knows ids and names; the numerics are in `similarity`,
`curation` and `cover`.
"""

import asyncio
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import Conflict, GraphNeeded, InvalidRequest, Overloaded, SampleNotFound
from serve_app.policy import MAX_PAIRWISE_ROWS
from serve_app.records import NearDuplicates, Neighbour, VectorArray
from serve_app.search.cover import closest_to, diverse
from serve_app.search.curation import near_duplicates, outlier_scores
from serve_app.search.graph_curation import linked_groups, mean_similarities
from serve_app.search.graph_file import DEFAULT_K, MAX_K, GraphFile
from serve_app.search.pairs import OnStep
from serve_app.search.part import Part, neighbours
from serve_app.search.set_files import SetFiles
from serve_app.search.set_values import values
from serve_app.search.similarity import best_of, normalised, top_k
from serve_app.services import Writer

LONG_AT_ONCE = 2
"""How many questions that compare all rows may be computed at a time; each takes all cores for its time."""

R = TypeVar("R")


class _Abandoned(Exception):
    """Nobody waits for the answer any more."""


class Neighbours:
    """The questions, as public methods; `services.Searcher` asks them by name.

    Each method raises `DatasetNotFound`, `NoEmbeddings` for a dataset without vectors, and `Unavailable` if the writer
    does. Scores are cosines. With a filter `where` the answer is that of a dataset which has the chosen samples only;
    `InvalidFilter` says what is wrong with one. `model` names one of the dataset's sets; without it the set made last
    answers.

    `duplicates` and `outliers` compare all pairs of at most `max_pairwise_rows` vectors; about more they ask the set's
    graph, and raise `GraphNeeded` where it has none.
    """

    def __init__(self, writer: Writer, folder: Path, *, max_pairwise_rows: int = MAX_PAIRWISE_ROWS) -> None:
        self._sets = SetFiles(folder, writer)
        self._writer = writer
        self._max_pairwise_rows = max_pairwise_rows
        self._n_long = 0

    async def similar(
        self, dataset_id: str, sample_id: str, limit: int, where: str | None = None, model: str | None = None
    ) -> list[Neighbour]:
        """The most similar samples, best first, without the sample itself, which `where` need not choose.

        Raises:
            SampleNotFound: the sample has no vector.
        """
        part = await self._sets.part(dataset_id, where, model)
        found = part.of
        row = await asyncio.to_thread(found.row_of, sample_id)
        if row is None:
            raise SampleNotFound("this sample has no vector: it was skipped, or added after the last embedding job")
        rows, scores = await asyncio.to_thread(
            top_k, found.matrix, found.matrix[row], limit, exclude=row, only=part.rows, codes=found.codes
        )
        return neighbours(found, rows, scores)

    async def search(
        self,
        dataset_id: str,
        query: NDArray[np.float32],
        space_key: str,
        limit: int,
        where: str | None = None,
        model: str | None = None,
    ) -> list[Neighbour]:
        """The samples most similar to a (D,) query vector of the same space, best first.

        Raises:
            Conflict: the dataset's vectors belong to another space.
        """
        part = await self._part_in(space_key, dataset_id, where, model)
        rows, scores = await asyncio.to_thread(top_k, part.of.matrix, query, limit, only=part.rows, codes=part.of.codes)
        return neighbours(part.of, rows, scores)

    async def best_of(
        self,
        dataset_id: str,
        queries: VectorArray,
        space_key: str,
        where: str | None = None,
        model: str | None = None,
    ) -> tuple[pa.Array, NDArray[np.intp], NDArray[np.float32]]:
        """Which of (P, D) queries of the same space each sample is most similar to.

        Returns:
            n sample ids, (n,) positions of queries, and (n,) cosines.

        Raises:
            Conflict: the dataset's vectors belong to another space.
            Overloaded: too many long questions are being answered.
        """
        part = await self._part_in(space_key, dataset_id, where, model)
        best, scores = await self._long(
            lambda on_step: best_of(part.of.matrix, normalised(queries), part.rows, on_step)
        )
        ids = part.of.rows.column("sample_id")
        return (ids if part.rows is None else ids.take(pa.array(part.rows))), best, scores

    async def duplicates(
        self, dataset_id: str, threshold: float, where: str | None = None, model: str | None = None
    ) -> NearDuplicates:
        """Groups of samples linked by a cosine of at least `threshold`, largest group first.

        `score` is the cosine of the sample's best link in the group.
        """
        part = await self._sets.part(dataset_id, where, model)
        graph = await self._graph(dataset_id, part, 1)

        def work(on_step: OnStep) -> NearDuplicates:
            contents, incomplete = part.contents(), 0
            if graph is not None:
                groups, incomplete = linked_groups(graph, part.rows, threshold, contents)
            else:
                groups = near_duplicates(part.matrix(on_step), threshold, contents, on_step=on_step)
            members = [member for group in groups for member in group]
            named = iter(part.neighbours((place for place, _ in members), (score for _, score in members)))
            return NearDuplicates([list(islice(named, len(group))) for group in groups], incomplete)

        return await self._long(work)

    async def outliers(
        self, dataset_id: str, k: int, limit: int, where: str | None = None, model: str | None = None
    ) -> list[Neighbour]:
        """The samples with the lowest mean similarity to their `k` nearest neighbours, lowest first."""
        part = await self._sets.part(dataset_id, where, model)
        graph = await self._graph(dataset_id, part, k)

        def work(on_step: OnStep) -> list[Neighbour]:
            if graph is not None:
                scores = mean_similarities(graph, part.rows, min(k, len(part) - 1))
            else:
                scores = outlier_scores(part.matrix(on_step), k, on_step=on_step)
            places = np.argsort(scores, kind="stable")[:limit]
            return part.neighbours(places, scores[places])

        return await self._long(work)

    async def diverse(
        self,
        dataset_id: str,
        n: int,
        where: str | None = None,
        labelled: str | None = None,
        balance: str | None = None,
        model: str | None = None,
    ) -> list[Neighbour]:
        """`n` samples that cover the dataset (k-centre greedy), in the order of choice.

        `score` is the similarity to the nearest sample chosen before; the first sample scores 0. The choice keeps away
        from the samples that the filter `labelled` chooses as if it had begun with them, and takes turns among the
        values of the column `balance`; samples without a value are one group more.
        """
        part = await self._sets.part(dataset_id, where, model)
        away = None if labelled is None else await self._sets.part(dataset_id, labelled, model)
        if away is not None and away.of.version != part.of.version:
            raise Conflict("The vectors were replaced while they were read; ask again.")
        classes = None if balance is None else await values(self._writer, dataset_id, part.of, balance)
        codes = None if classes is None else part.chosen(classes.codes)
        places, scores = await self._long(lambda on_step: _spread(part, n, away, codes, on_step))
        return part.neighbours(places, scores)

    async def prepare(self, dataset_id: str) -> None:
        """Read the set made last into its file, so that the next question need not wait for it."""
        await self._sets.current(dataset_id)

    async def forget(self, dataset_id: str) -> None:
        """Remove the files of those sets of a dataset that were deleted; unknown ids are ignored."""
        await self._sets.forget(dataset_id)

    async def _part_in(self, space_key: str, dataset_id: str, where: str | None, model: str | None) -> Part:
        """What a filter chooses of a set of this space. Raises `Conflict`: the set belongs to another space."""
        part = await self._sets.part(dataset_id, where, model)
        if part.of.space_key != space_key:
            raise Conflict(
                "the dataset's vectors come from another model or precision than the query; generate them again"
            )
        return part

    async def _graph(self, dataset_id: str, part: Part, k: int) -> GraphFile | None:
        """The graph that knows k neighbours or more; None where the part is so small that nobody needs it."""
        n = len(part)
        if n <= self._max_pairwise_rows:
            return None
        if k > MAX_K:
            raise InvalidRequest(f"of {n:,} images a graph is needed, which has at most {MAX_K} neighbours, not {k}")
        graph = await self._sets.graph(part.of)
        if graph is None or graph.k < min(k, len(part.of.matrix) - 1):
            wanted = max(k, DEFAULT_K)
            raise GraphNeeded(
                f"{wanted}: {n:,} images are too many to compare while you wait: make their graph first, "
                f'POST /datasets/{dataset_id}/graph {{"k": {wanted}}} (with the same `model`), and ask again.'
            )
        return graph

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


def _spread(
    part: Part, n: int, away: Part | None, classes: NDArray[np.int32] | None, on_step: OnStep
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Places of a diverse choice and their scores; none of them lies in `away`."""
    matrix = part.matrix(on_step)
    closest = None
    if away is not None and len(away):
        closest = closest_to(matrix, away.matrix(on_step), on_step=on_step)
        is_away = np.zeros(len(part.of.matrix), bool)
        is_away[slice(None) if away.rows is None else away.rows] = True
        closest[is_away[slice(None) if part.rows is None else part.rows]] = np.inf
    return diverse(matrix, n, closest=closest, classes=classes, on_step=on_step)
