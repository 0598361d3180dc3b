"""One attempt at a graph job: find the nearest neighbours of every vector, in a process that can be killed."""

from serve_app.jobs.telling import telling
from serve_app.projection.fit_process import FitProcess
from serve_app.records import Claim
from serve_app.search.set_files import SetFiles
from serve_app.services import Writer
from serve_app.store.jobs import Jobs


async def graph_job(claim: Claim, writer: Writer, sets: SetFiles, process: FitProcess) -> None:
    """Run a claimed graph job until it is `complete`. What an earlier attempt has found is kept.

    Args:
        claim: the job; `k` of its `params` is the number of neighbours.
        writer: the store.
        sets: the files of the vectors.
        process: finds the neighbours; cancelling this call ends it.

    Raises:
        WorkerCrashed: the process died.
        Conflict: the vectors were replaced meanwhile.
        StaleAttempt: the job was cancelled, or another attempt claimed it.
        NoEmbeddings: the dataset's vectors are gone.
        Unavailable: the disk is full.
    """
    job_id, attempt = claim.job.id, claim.attempt
    await writer.ask(Jobs.announce, job_id, attempt, phase="running", message="Reading vectors")
    found = await sets.current(claim.dataset.id, claim.job.model_name)
    k = int(str(claim.params["k"]))
    message = f"Finding {k} neighbours of each of {len(found.matrix):,} images"
    await writer.ask(Jobs.announce, job_id, attempt, phase="running", message=message)
    done = _Done()

    async def advance(n_rows: int) -> None:
        await writer.ask(Jobs.advance, job_id, attempt, done=n_rows, message=message)

    async with telling(lambda: done.n_rows, advance):
        k = await process.graph(found.folder, k, done.note)
    message = f"Found {k} neighbours of each of {len(found.matrix):,} images"
    await writer.ask(Jobs.complete, job_id, attempt, message)


class _Done:
    """How many rows are done, noted by one thread and read by another."""

    def __init__(self) -> None:
        self.n_rows = 0

    def note(self, phase: str, done: int, total: int) -> None:
        self.n_rows = done
