"""Fits in a child process, because compiled code can be stopped by ending its process alone.

The process stays from fit to fit, so that umap's kernels are loaded once. It is killed when a fit is cancelled, and the
next fit starts another one. It ends by itself when its parent has died.
"""

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve_app import logs
from serve_app.errors import Conflict, ServiceError, WorkerCrashed
from serve_app.projection import reduction
from serve_app.projection.reduction import OnProgress, Projection
from serve_app.search.set_file import SetFile

log = logging.getLogger("constellate.fit")

Points = NDArray[np.float64]

Fit = Callable[[Path, Projection, OnProgress], Points]

WARM = "warm"


def fit_set(folder: Path, projection: Projection, on_progress: OnProgress) -> Points:
    """The (N, 2) points of the N vectors of a `SetFile`; see `reduction.reduce`.

    Raises:
        Conflict: a newer version of the set has taken its place.
        InvalidRequest: a vector is not finite.
    """
    found = SetFile.open(folder)
    if found is None:
        raise Conflict("the vectors changed before the fit began; ask for the map again")
    vectors = found.matrix if projection.metric == "cosine" else found.matrix * found.lengths[:, None]
    return reduction.reduce(vectors, projection, on_progress=on_progress)


class FitProcess:
    """Runs one fit at a time, since numba's parallel kernels share their threads; other fits wait for their turn."""

    def __init__(self, fit: Fit = fit_set, warm: Callable[[], None] = reduction.warm) -> None:
        self._work = (fit, warm)
        self._turn = asyncio.Lock()
        self._child: _Child | None = None

    async def warm(self) -> None:
        """Start the process and compile what the first fit needs. Raises `WorkerCrashed`."""
        await self._ask(WARM, _ignore)

    async def fit(self, folder: Path, projection: Projection, on_progress: OnProgress) -> Points:
        """Fit the set in a folder; `on_progress` is called in a thread. A cancelled fit ends at once.

        Raises:
            WorkerCrashed: the process died.
            ServiceError: see `fit_set`.
        """
        points: Points = await self._ask((folder, projection), on_progress)
        return points

    async def _ask(self, question: object, on_progress: OnProgress) -> Points:
        async with self._turn:
            self._child = self._child or _Child(*self._work)
            try:
                answer = await asyncio.to_thread(self._child.ask, question, on_progress)
            except asyncio.CancelledError:
                self._end()
                raise
            except (EOFError, OSError) as error:
                self._end()
                raise WorkerCrashed("the process that lays out maps died; the map is laid out again") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _end(self) -> None:
        if self._child is not None:
            self._child.process.kill()
        self._child = None


class _Child:
    """The process, seen from its parent."""

    def __init__(self, fit: Fit, warm: Callable[[], None]) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of the parent's threads
        self._pipe, its_end = spawn.Pipe()
        self.process = spawn.Process(target=_answer, args=(its_end, fit, warm), name="umap", daemon=True)
        self.process.start()
        its_end.close()  # the child's death closes the last copy, and `recv` raises EOFError

    def ask(self, question: object, on_progress: OnProgress) -> Points | Exception:
        """Send a question and return its answer. Raises `EOFError`, `OSError` when the process has died."""
        self._pipe.send(question)
        while True:
            answer: Points | Exception | tuple[str, int, int] = self._pipe.recv()
            if not isinstance(answer, tuple):
                return answer
            on_progress(*answer)


def _answer(pipe: Connection, fit: Fit, warm: Callable[[], None]) -> None:
    """Answer the parent's questions for ever, with progress as tuples before the answer."""
    logs.to_stderr("Reducer")
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    while True:
        question = pipe.recv()
        try:
            if question == WARM:
                warm()
                answer: Points | Exception = np.empty((0, 2))
            else:
                folder, projection = question
                answer = fit(folder, projection, lambda phase, done, total: pipe.send((phase, done, total)))
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


def _ignore(phase: str, done: int, total: int) -> None:
    """Drop a report of progress."""
