"""`Reducer`: UMAP and neighbour graphs in a child process, which has a lower priority than the rest of the service."""

import os
from collections.abc import Awaitable, Callable

from deployments.handles import WriterHandle
from deployments.loopback import keep_replica_here
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.jobs.graph_job import graph_job
from serve_app.jobs.loop import PatientWriter
from serve_app.jobs.reduce_job import reduce_job
from serve_app.projection.fit_process import FitProcess
from serve_app.records import Claim
from serve_app.search.set_files import SetFiles
from serve_app.services import Writer

NICENESS = 10
"""Compiling and fitting use only the CPU time that embedding leaves, so that they do not slow a running job."""


Run = Callable[[Claim, Writer, SetFiles, FitProcess], Awaitable[None]]


class Reducer:
    """The reducer has zero or one replica and runs one fit or graph at a time; a cancelled call ends it."""

    def __init__(self, settings: Settings) -> None:
        logs.to_stderr("Reducer")
        keep_replica_here()
        os.nice(NICENESS)  # the child gets it too
        self._writer = PatientWriter(WriterHandle(settings))
        self._sets = SetFiles(settings.sets_path, self._writer)
        self._process = FitProcess()

    async def warm(self) -> None:
        """Compile the kernels that the first fit needs."""
        await self._process.warm()

    async def reduce(self, claim: Claim) -> ServiceError | None:
        """Run a claimed reduce job to its end; see `loop.Projector.reduce`."""
        return await self._run(reduce_job, claim)

    async def graph(self, claim: Claim) -> ServiceError | None:
        """Run a claimed graph job to its end; see `loop.Projector.graph`."""
        return await self._run(graph_job, claim)

    async def _run(self, job: Run, claim: Claim) -> ServiceError | None:
        try:
            with logs.about(job_id=claim.job.id):
                await job(claim, self._writer, self._sets, self._process)
        except ServiceError as error:
            return error
        return None
