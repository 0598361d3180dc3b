"""One attempt at a reduce job: read the vectors, fit, write the points to exactly those vectors."""

import asyncio
from concurrent.futures import Executor
from functools import partial

from serve_app.records import Claim
from serve_app.reduction import Projection, reduce
from serve_app.services import Writer
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors


async def reduce_job(claim: Claim, writer: Writer, thread: Executor) -> None:
    """Carry a claimed reduce job to `complete`.

    Args:
        claim: the job; its `params` are those of `Projection`.
        writer: the store.
        thread: where the fit runs; one at a time, since Numba's parallel kernels share their threads.

    Raises:
        StaleAttempt: the job was cancelled or claimed anew; the points are dropped.
        NoEmbeddings: the vectors are gone.
    """
    job_id, attempt = claim.job.id, claim.attempt
    await writer.call(Jobs.announce, job_id, attempt, phase="running", message="Reading vectors")
    vectors = await writer.call(Vectors.read, claim.dataset.id)
    message = f"Fitting UMAP to {len(vectors.sample_ids):,} vectors"
    await writer.call(Jobs.announce, job_id, attempt, phase="fitting", message=message)
    projection = Projection.model_validate(claim.params)
    fit = partial(reduce, vectors.vectors, projection)
    points = await asyncio.get_running_loop().run_in_executor(thread, fit)
    await writer.call(Vectors.put_points, job_id, attempt, vectors.job_id, points)
