"""One attempt at a reduce job: read the vectors, fit UMAP, write the points to exactly those vectors."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import ServiceError
from serve_app.projection.reduction import Projection, reduce
from serve_app.records import Claim
from serve_app.search.set_file import SetFile
from serve_app.search.set_files import SetFiles
from serve_app.services import Writer
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

TELL_S = 1.0

PHASES = {"neighbours": "neighbours", "layout": "epoch"}
"""Readable words for the units that `reduction.OnProgress` counts."""


class Fit:
    """One reduction whose progress another thread can read."""

    def __init__(self, found: SetFile, projection: Projection) -> None:
        self._found = found
        self._projection = projection
        self.progress = ""

    def run(self) -> NDArray[np.float64]:
        """Reduce; see `reduction.reduce`."""
        is_cosine = self._projection.metric == "cosine"
        vectors = self._found.matrix if is_cosine else self._found.matrix * self._found.lengths[:, None]
        return reduce(vectors, self._projection, on_progress=self._note)

    def _note(self, phase: str, done: int, total: int) -> None:
        self.progress = f"{PHASES[phase]} {done:,} of {total:,}"


async def _tell(fit: Fit, announce: Callable[[str], Awaitable[None]]) -> None:
    """Announce the progress of the fit whenever it changes; stop silently when the writer refuses."""
    told = ""
    while True:
        await asyncio.sleep(TELL_S)
        if fit.progress != told:
            told = fit.progress
            try:
                await announce(told)
            except ServiceError:  # writing the points will raise for a lost job or an outage
                return


async def reduce_job(claim: Claim, writer: Writer, sets: SetFiles, thread: Executor) -> None:
    """Run a claimed reduce job until it is `complete`.

    Args:
        claim: the job; its `params` are the fields of `Projection`.
        writer: the store.
        sets: the files of the vectors.
        thread: runs the fit, one fit at a time, because Numba's parallel kernels share their threads.

    Raises:
        StaleAttempt: the job was cancelled, or another attempt claimed it; the points are dropped.
        NoEmbeddings: the dataset's vectors are gone.
    """
    job_id, attempt = claim.job.id, claim.attempt
    await writer.ask(Jobs.announce, job_id, attempt, phase="running", message="Reading vectors")
    found = await sets.current(claim.dataset.id)
    message = f"Fitting UMAP to {len(found.matrix):,} vectors"
    await writer.ask(Jobs.announce, job_id, attempt, phase="fitting", message=message)
    projection = Projection.model_validate(claim.params)
    fit = Fit(found, projection)

    async def announce(progress: str) -> None:
        text = f"{message}: {progress}"
        await writer.ask(Jobs.announce, job_id, attempt, phase="fitting", message=text)

    telling = asyncio.create_task(_tell(fit, announce))
    try:
        points = await asyncio.get_running_loop().run_in_executor(thread, fit.run)
    finally:
        telling.cancel()
    await writer.ask(Vectors.put_points, job_id, attempt, found.job_id, points)
