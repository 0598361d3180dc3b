"""`Reducer`: UMAP in a child process, with a lower priority than all other processes of the service."""

import os

from deployments.handles import WriterHandle
from deployments.loopback import keep_replica_here
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.jobs.loop import PatientWriter
from serve_app.jobs.reduce_job import reduce_job
from serve_app.projection.fit_process import FitProcess
from serve_app.records import Claim
from serve_app.search.set_files import SetFiles

NICENESS = 10
"""Compiling and fitting use only the CPU time that embedding leaves, so that they do not slow a running job."""


class Reducer:
    """The reducer has zero or one replica and runs one fit at a time; a cancelled call ends its fit."""

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
        try:
            with logs.about(job_id=claim.job.id):
                await reduce_job(claim, self._writer, self._sets, self._process)
        except ServiceError as error:
            return error
        return None
