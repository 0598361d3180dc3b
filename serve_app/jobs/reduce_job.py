"""One attempt at a reduce job: read the vectors, fit UMAP, write the points to exactly those vectors."""

from serve_app.jobs.telling import telling
from serve_app.projection.fit_process import FitProcess
from serve_app.projection.reduction import Projection
from serve_app.records import Claim
from serve_app.search.set_files import SetFiles
from serve_app.services import Writer
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

PHASES = {"neighbours": "neighbours", "layout": "epoch"}
"""Readable words for the units that `reduction.OnProgress` counts."""


class Progress:
    """How far a fit is, noted by one thread and read by another."""

    def __init__(self) -> None:
        self.text = ""

    def note(self, phase: str, done: int, total: int) -> None:
        """Keep what `reduction.OnProgress` is told, in words."""
        self.text = f"{PHASES[phase]} {done:,} of {total:,}"


async def reduce_job(claim: Claim, writer: Writer, sets: SetFiles, process: FitProcess) -> None:
    """Run a claimed reduce job until it is `complete`.

    Args:
        claim: the job; its `params` are the fields of `Projection`.
        writer: the store.
        sets: the files of the vectors.
        process: runs the fit; cancelling this call ends it.

    Raises:
        WorkerCrashed: the fit's process died.
        Conflict: the vectors were replaced before the fit began.
        StaleAttempt: the job was cancelled, or another attempt claimed it; the points are dropped.
        NoEmbeddings: the dataset's vectors are gone.
    """
    job_id, attempt = claim.job.id, claim.attempt
    await writer.ask(Jobs.announce, job_id, attempt, phase="running", message="Reading vectors")
    found = await sets.current(claim.dataset.id)
    message = f"Fitting UMAP to {len(found.matrix):,} vectors"
    await writer.ask(Jobs.announce, job_id, attempt, phase="fitting", message=message)
    projection = Projection.model_validate(claim.params)
    progress = Progress()

    async def announce(text: str) -> None:
        await writer.ask(Jobs.announce, job_id, attempt, phase="fitting", message=f"{message}: {text}")

    async with telling(lambda: progress.text, announce):
        points = await process.fit(found.folder, projection, progress.note)
    await writer.ask(Vectors.put_points, job_id, attempt, found.job_id, points)
