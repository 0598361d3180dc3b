"""Fits and graphs in a child process, because compiled code can be stopped by ending its process alone.

The process stays from fit to fit, so that umap's kernels are loaded once. It is killed when a fit is cancelled, and the
next fit starts another one. It ends by itself when its parent has died.
"""

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app import logs
from serve_app.errors import Conflict, ServiceError, WorkerCrashed
from serve_app.projection import reduction
from serve_app.projection.epoch_report import OnProgress
from serve_app.projection.placement import place
from serve_app.projection.reduction import Fitted, Projection
from serve_app.records import VectorArray
from serve_app.search.graph import MAX_EXACT_ROWS, make_graph
from serve_app.search.graph_file import MAX_K
from serve_app.search.set_file import SetFile

log = logging.getLogger("constellate.fit")

Points = NDArray[np.float64]

Fit = Callable[[Path, Projection, OnProgress], Fitted]
Place = Callable[[Path, Projection, Points, OnProgress], Points]
Graph = Callable[[Path, int, OnProgress], int]
Work = Callable[..., Any]
"""A function of a module; its last argument takes progress."""
Question = tuple[Work, tuple[object, ...]]


def fit_set(folder: Path, projection: Projection, on_progress: OnProgress) -> Fitted:
    """The points of the N vectors of a `SetFile`; see `reduction.reduce`.

    Raises:
        Conflict: a newer version of the set has taken its place.
        InvalidRequest: a vector is not finite.
    """
    found, vectors = _opened(folder, projection)
    graph, k = None, projection.n_neighbors - 1
    if len(found.matrix) > MAX_EXACT_ROWS and projection.metric == "cosine" and k <= MAX_K:
        graph = make_graph(folder, k, lambda done, total: on_progress("neighbours", done, total))
    return reduction.reduce(vectors, projection, graph=graph, on_progress=on_progress)


def place_in_set(folder: Path, projection: Projection, kept: Points, on_progress: OnProgress) -> Points:
    """The (N, 2) points of a `SetFile` in which those without a point in `kept` get one; see `placement.place`.

    Raises:
        Conflict: a newer version of the set has taken its place.
    """
    _, vectors = _opened(folder, projection)
    if len(kept) != len(vectors):
        raise Conflict("the vectors changed before they were placed; ask for the map again")
    return place(vectors, kept, projection, on_progress)


def _opened(folder: Path, projection: Projection) -> tuple[SetFile, VectorArray]:
    """A set and its vectors, as the metric needs them. Raises `Conflict` if it is gone."""
    found = SetFile.open(folder)
    if found is None:
        raise Conflict("the vectors changed before the fit began; ask for the map again")
    return found, found.matrix if projection.metric == "cosine" else found.matrix * found.lengths[:, None]


def graph_of_set(folder: Path, k: int, on_progress: OnProgress) -> int:
    """Make the graph of a `SetFile` and return its number of neighbours; see `graph.make_graph`."""
    return make_graph(folder, k, lambda done, total: on_progress("graph", done, total)).k


class FitProcess:
    """Runs one fit at a time, since numba's parallel kernels share their threads; other fits wait for their turn.

    A graph is such a fit too.
    """

    def __init__(
        self,
        fit: Fit = fit_set,
        warm: Callable[[], None] = reduction.warm,
        graph: Graph = graph_of_set,
        place: Place = place_in_set,
    ) -> None:
        self._fit, self._warm, self._graph, self._place = fit, warm, graph, place
        self._turn = asyncio.Lock()
        self._child: _Child | None = None

    async def warm(self) -> None:
        """Start the process and compile what the first fit needs. Raises `WorkerCrashed`."""
        await self._ask(_warmed, (self._warm,), _ignore)

    async def fit(self, folder: Path, projection: Projection, on_progress: OnProgress) -> Fitted:
        """Fit the set in a folder; `on_progress` is called in a thread. A cancelled fit ends at once.

        Raises:
            WorkerCrashed: the process died.
            ServiceError: see `fit_set`.
        """
        fitted: Fitted = await self._ask(self._fit, (folder, projection), on_progress)
        return fitted

    async def place(self, folder: Path, projection: Projection, kept: Points, on_progress: OnProgress) -> Points:
        """Place what has no point among what has; `on_progress` and a cancelled call are as in `fit`.

        Raises:
            WorkerCrashed: the process died.
            ServiceError: see `place_in_set`.
        """
        points: Points = await self._ask(self._place, (folder, projection, kept), on_progress)
        return points

    async def graph(self, folder: Path, k: int, on_progress: OnProgress) -> int:
        """Make the graph of the set in a folder, and return its number of neighbours; a cancelled call ends at once.

        Raises:
            WorkerCrashed: the process died; the rows that it had done are kept.
            ServiceError: see `graph.make_graph`.
        """
        found: int = await self._ask(self._graph, (folder, k), on_progress)
        return found

    async def _ask(self, work: Work, args: tuple[object, ...], on_progress: OnProgress) -> Any:
        async with self._turn:
            self._child = self._child or _Child()
            try:
                answer = await asyncio.to_thread(self._child.ask, (work, args), on_progress)
            except asyncio.CancelledError:
                self._end()
                raise
            except (EOFError, OSError) as error:
                self._end()
                raise WorkerCrashed("the process that makes maps and graphs died; it is started again") from error
        if isinstance(answer, Exception):
            raise answer
        return answer.value

    def _end(self) -> None:
        if self._child is not None:
            self._child.process.kill()
        self._child = None


class _Child:
    """The process, seen from its parent."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of the parent's threads
        self._pipe, its_end = spawn.Pipe()
        self.process = spawn.Process(target=_answer, args=(its_end,), name="umap", daemon=True)
        self.process.start()
        its_end.close()  # the child's death closes the last copy, and `recv` raises EOFError

    def ask(self, question: Question, on_progress: OnProgress) -> "_Answer | Exception":
        """Send a question and return its answer. Raises `EOFError`, `OSError` when the process has died."""
        self._pipe.send(question)
        while True:
            answer: _Answer | Exception | tuple[str, int, int] = self._pipe.recv()
            if not isinstance(answer, tuple):
                return answer
            on_progress(*answer)


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any


def _answer(pipe: Connection) -> None:
    """Answer the parent's questions for ever, with progress as tuples before the answer."""
    logs.to_stderr("Reducer")
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    while True:
        work, args = pipe.recv()
        answer: _Answer | Exception
        try:
            answer = _Answer(work(*args, lambda phase, done, total: pipe.send((phase, done, total))))
        except Exception as error:
            if not isinstance(error, ServiceError):
                log.exception("a fit broke")
            answer = error
        pipe.send(answer)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only a child runs this
    wait([parent.sentinel])
    os._exit(1)


def _warmed(warm: Callable[[], None], on_progress: OnProgress) -> None:
    warm()


def _ignore(phase: str, done: int, total: int) -> None:
    """Drop a report of progress."""
