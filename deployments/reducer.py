"""`Reducer`: UMAP in its own process, with a lower priority than all other processes of the service."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from deployments.handles import WriterHandle
from deployments.loopback import keep_replica_here
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.jobs.loop import PatientWriter
from serve_app.jobs.reduce_job import reduce_job
from serve_app.projection import reduction
from serve_app.records import Claim
from serve_app.search.set_files import SetFiles

NICENESS = 10
"""Compiling and fitting use only the CPU time that embedding leaves, so that they do not slow a running job."""


class Reducer:
    """The reducer has zero or one replica and runs one fit at a time."""

    def __init__(self, settings: Settings) -> None:
        logs.to_stderr("Reducer")
        keep_replica_here()
        os.nice(NICENESS)
        self._writer = PatientWriter(WriterHandle(settings))
        self._sets = SetFiles(settings.sets_path, self._writer)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="umap")

    async def warm(self) -> None:
        """Compile the kernels that the first fit needs."""
        await asyncio.get_running_loop().run_in_executor(self._thread, reduction.warm)

    async def reduce(self, claim: Claim) -> ServiceError | None:
        """Run a claimed reduce job to its end; see `loop.Projector.reduce`."""
        try:
            with logs.about(job_id=claim.job.id):
                await reduce_job(claim, self._writer, self._sets, self._thread)
        except ServiceError as error:
            return error
        return None
