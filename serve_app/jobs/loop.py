"""The job loop: claims durable jobs, keeps their leases, and runs each to its end.

The loop uses the store's methods and three protocols, and does not use Ray. Any number of loops may run: the attempt
number fences off a loop that has lost its job, and the store refuses that loop's further writes.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from aiorwlock import RWLock

from serve_app import logs
from serve_app.errors import ServiceError, StaleAttempt
from serve_app.jobs.embed_job import EmbedJob, FileEmbedder
from serve_app.jobs.listing import Lister
from serve_app.jobs.listing_job import listing_job
from serve_app.jobs.parts_job import parts_job
from serve_app.jobs.retrying import FIT_AGAIN, UNTIL_BACK
from serve_app.records import Claim
from serve_app.search.neighbours import Neighbours
from serve_app.services import Searcher, Writer
from serve_app.sources.reading import Reader
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

log = logging.getLogger("constellate.runner")

POLL_S = 1.0
LEASE_S = 5.0
"""Another runner claims the jobs of a killed runner after this time at most; several renewals fit into it."""
RENEW_S = 1.0
MAX_HELD_JOBS = 8
COMPARING = ("reduce", "graph")
"""The kinds of jobs that leave the vectors as they are."""

P = ParamSpec("P")
R = TypeVar("R")


class Projector(Protocol):
    """Runs reduce and graph jobs."""

    async def warm(self) -> None:
        """Start compiling the kernels of the first fit; this returns at once and never fails."""
        ...

    async def reduce(self, claim: Claim) -> None:
        """Run a claimed reduce job to its end. The call may be repeated.

        Raises:
            WorkerCrashed: the process that fits the map died.
        """
        ...

    async def graph(self, claim: Claim) -> None:
        """Run a claimed graph job to its end. The call may be repeated.

        Raises:
            WorkerCrashed: the process that finds the neighbours died.
        """
        ...


class PatientWriter:
    """A writer that waits out outages: it repeats a call that raises `Unavailable` until the call succeeds.

    Use it only for calls that may be repeated: fenced calls, numbered calls and reads.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def ask(self, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a store method; see `services.Writer.ask`."""
        name = method.__qualname__
        return await UNTIL_BACK.until_answered(
            lambda: self._writer.ask(method, *args, **kwargs), what=f"the writer's {name}"
        )


class JobLoop:
    """Claims and runs jobs until it is stopped.

    Args:
        writer: the store; the loop waits out its outages.
        embedder: makes vectors of files.
        reader: finds out which files exist.
        projector: runs reduce and graph jobs.
        lister: lists the sources of datasets.
        searcher: reads new vectors when a job has ended, so that the first search need not wait for it.
        window: the number of chunks of all jobs that may be under way at a time.
        chunk_images: the number of files in one call to a replica.
    """

    def __init__(
        self,
        writer: Writer,
        embedder: FileEmbedder,
        projector: Projector,
        *,
        reader: Reader,
        lister: Lister,
        searcher: Searcher,
        window: int,
        chunk_images: int,
    ) -> None:
        self.runner_id = uuid.uuid4().hex
        self._writer = PatientWriter(writer)
        self._embedder = embedder
        self._reader = reader
        self._projector = projector
        self._lister = lister
        self._searcher = searcher
        self._window = asyncio.Semaphore(window)
        self._isolation = RWLock()
        self._chunk_images = chunk_images
        self._held: dict[str, asyncio.Task[None]] = {}
        self._preparing: set[asyncio.Task[None]] = set()
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Look for a job now."""
        self._nudged.set()

    async def run(self) -> None:
        """Claim and run jobs for ever; on cancellation, release the held jobs."""
        try:
            while True:
                claim = await self._claim()
                if claim is None:
                    await self._wait()
                else:
                    self._start(claim)
        finally:
            tasks = [*self._held.values(), *self._preparing]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _claim(self) -> Claim | None:
        if len(self._held) >= MAX_HELD_JOBS:
            return None
        self._nudged.clear()
        return await self._writer.ask(Jobs.claim, self.runner_id, holding=list(self._held), lease_s=LEASE_S)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._nudged.wait(), POLL_S)
        except TimeoutError:
            return

    def _start(self, claim: Claim) -> None:
        with logs.about(job_id=claim.job.id):
            task = asyncio.create_task(self._hold(claim), name=f"job-{claim.job.id}")
        self._held[claim.job.id] = task

        def forget(task: asyncio.Task[None]) -> None:
            self._held.pop(claim.job.id, None)
            self.nudge()
            if claim.job.kind not in COMPARING and not task.cancelled():
                preparing = asyncio.create_task(self._prepare(claim.job.dataset_id))
                self._preparing.add(preparing)
                preparing.add_done_callback(self._preparing.discard)

        task.add_done_callback(forget)

    async def _prepare(self, dataset_id: str) -> None:
        with suppress(ServiceError):  # there may be no vectors; the first search says what is wrong
            await self._searcher.ask(Neighbours.prepare, dataset_id)

    async def _hold(self, claim: Claim) -> None:
        """Run a job and renew its lease in parallel; when one of the two ends, the other is cancelled."""
        log.info("job %s: attempt %d begins (%s)", claim.job.id, claim.attempt, claim.job.kind)
        work = asyncio.create_task(self._work(claim))
        lease = asyncio.create_task(self._keep_lease(claim))
        try:
            await asyncio.wait({work, lease}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            cut_short = not work.done()
            for task in (work, lease):
                task.cancel()
            await asyncio.gather(work, lease, return_exceptions=True)
            if cut_short:
                await self._release(claim)

    async def _keep_lease(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._writer.ask(Jobs.renew, claim.job.id, claim.attempt, lease_s=LEASE_S)
            except StaleAttempt:
                log.info("job %s: attempt %d is over", claim.job.id, claim.attempt)
                return

    async def _release(self, claim: Claim) -> None:
        """Try to release the job; if that fails, the job is free when its lease runs out."""
        try:
            await asyncio.wait_for(self._writer.ask(Jobs.release, claim.job.id, claim.attempt), 1.0)
        except (TimeoutError, ServiceError):
            return

    async def _work(self, claim: Claim) -> None:
        try:
            match claim.job.kind:
                case "embed":
                    await self._embed(claim)
                case "reduce":
                    await FIT_AGAIN.until_answered(lambda: self._projector.reduce(claim), what="the reducer")
                case "graph":
                    await FIT_AGAIN.until_answered(lambda: self._projector.graph(claim), what="the reducer")
                case "register" | "rescan":
                    await listing_job(claim, self._writer, self._lister)
                case "import" if "parts" in claim.params:
                    await parts_job(claim, self._writer, self._lister)
                case "import":  # no more rows can arrive once the job can be claimed
                    await self._writer.ask(Vectors.commit, claim.job.id, claim.attempt)
        except StaleAttempt:
            return
        except ServiceError as error:
            await self._fail(claim, f"{error.code}: {error.detail}")
        except Exception:
            log.exception("job %s: attempt %d broke", claim.job.id, claim.attempt)
            await self._fail(claim, "internal error; the service's log has the details")

    async def _embed(self, claim: Claim) -> None:
        job = EmbedJob(
            claim,
            writer=self._writer,
            embedder=self._embedder,
            reader=self._reader,
            isolation=self._isolation,
            window=self._window,
            chunk_images=self._chunk_images,
        )
        await job.run(when_begun=self._projector.warm)

    async def _fail(self, claim: Claim, message: str) -> None:
        log.warning("job %s failed: %s", claim.job.id, message)
        try:
            await self._writer.ask(Jobs.fail, claim.job.id, claim.attempt, message)
        except StaleAttempt:
            return
