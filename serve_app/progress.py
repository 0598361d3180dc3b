"""Progress streams: one poll of the job table per process, fanned out to every stream.

A stream is state, not log: each client gets the newest state and the older ones are forgotten, so a slow
client costs nothing and a late one misses nothing.
"""

import asyncio
import contextlib
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable

from sse_starlette.event import ServerSentEvent

from serve_app.errors import JobNotFound, Overloaded, Unavailable
from serve_app.records import TERMINAL, Job, JobKind
from serve_app.services import Services
from serve_app.store.jobs import Jobs

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
MAX_PAUSE_S = 5.0
MAX_STREAMS = 500
RETRY_MS = 1500
EVENTS_PER_S = 200
"""Of progress, over all streams of a process: an event costs its two processes about a millisecond."""


class Watch:
    """One stream's place at the hub.

    It follows one job from the first state it sees to the terminal one; where there is no job yet it waits.
    """

    def __init__(self, dataset_id: str, kind: JobKind, on_close: "Callable[[Watch], None]") -> None:
        self.key: tuple[str, JobKind] = (dataset_id, kind)
        self.job: Job | None = None
        self._has_state = False
        self._is_closed = False
        self._changed = asyncio.Event()
        self._on_close = on_close

    def offer(self, job: Job | None, *, is_due: bool = True) -> None:
        """Take the newest state; one already known wakes nobody, and one in the middle of a job can wait its turn."""
        if self._has_state and not is_due and job is not None and job.status not in TERMINAL:
            return
        if job is None and self.job is not None:
            self.close()  # the dataset was deleted
        elif not self._has_state or _version(job) != _version(self.job):
            self.job = job
            self._has_state = True
            self._changed.set()

    def close(self) -> None:
        """Give the place back and end the stream; a second time changes nothing."""
        self._is_closed = True
        self._changed.set()
        self._on_close(self)

    async def states(self) -> AsyncIterator[Job | None]:
        """The present state, then each newer one, up to the terminal one."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._is_closed:
                return
            yield self.job
            if self.job is not None and self.job.status in TERMINAL:
                return


class ProgressHub:
    """Every open stream of this process, and the one task that polls for them."""

    def __init__(
        self,
        find_services: Callable[[], Services],
        *,
        poll_interval_s: float = POLL_INTERVAL_S,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        self._find_services = find_services
        self._poll_interval_s = poll_interval_s
        self._max_streams = max_streams
        # Held weakly: a response dropped before its first byte never runs a `finally`, yet frees its place.
        self._watches: weakref.WeakSet[Watch] = weakref.WeakSet()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._next_turn_at = 0.0

    def __len__(self) -> int:
        """Streams open now."""
        return len(self._watches)

    def watch(self, dataset_id: str, kind: JobKind) -> Watch:
        """Open a stream; its first state is read after this call, so that it shows a job created before.

        Raises:
            Overloaded: too many streams are open.
        """
        if len(self._watches) >= self._max_streams:
            raise Overloaded(f"{self._max_streams} progress streams are open; poll GET /jobs/{{id}} instead.")
        watch = Watch(dataset_id, kind, self._watches.discard)
        self._watches.add(watch)
        self._woken.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="progress-hub")
        return watch

    async def _run(self) -> None:
        pause_s = self._poll_interval_s
        try:
            while self._watches:
                self._woken.clear()
                try:
                    await self._poll()
                    pause_s = self._poll_interval_s
                except Unavailable as error:
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
                    logger.warning("progress is not to be had, next try in %.1f s: %s", pause_s, error.detail)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._woken.wait()
        except Exception:
            # Streams that end without a terminal state make their clients reconnect; silent ones would hang.
            logger.exception("the progress poll failed; its streams end")
            for watch in list(self._watches):
                watch.close()

    async def _poll(self) -> None:
        """Read the newest job of every stream once; streams opened meanwhile wait for the next poll."""
        call = self._find_services().writer.call
        watches = list(self._watches)
        keys = sorted({watch.key for watch in watches})
        newest = dict(zip(keys, await call(Jobs.latest, keys), strict=True))
        states: dict[str, Job | None] = {job.id: job for job in newest.values() if job is not None}
        now = asyncio.get_running_loop().time()
        is_due = now >= self._next_turn_at
        if is_due:
            self._next_turn_at = now + len(watches) / EVENTS_PER_S
        for watch in watches:
            job = newest[watch.key]
            if job is not None and watch.job is not None and watch.job.id != job.id:
                # The followed job ended and a newer one began between two polls.
                if watch.job.id not in states:
                    states[watch.job.id] = await self._read(watch.job.id)
                job = states[watch.job.id]
            watch.offer(job, is_due=is_due)

    async def _read(self, job_id: str) -> Job | None:
        try:
            return await self._find_services().writer.call(Jobs.get, job_id)
        except JobNotFound:
            return None


def _version(job: Job | None) -> tuple[str, int, str, str] | None:
    return None if job is None else (job.id, job.seq, job.status, job.phase)


def event_id(job: Job) -> str:
    """What `Last-Event-ID` brings back."""
    return f"{job.id}:{job.seq}"


def has_seen_end(job: Job | None, last_event_id: str) -> bool:
    """Whether a client that reconnects already has the terminal state; answering 204 stops an `EventSource`."""
    return job is not None and job.status in TERMINAL and event_id(job) == last_event_id


def progress_event(job: Job | None, *, retry_ms: int | None = None) -> ServerSentEvent:
    """One state as an event (contract, section 4); None is a dataset without a job."""
    if job is None:
        state = _state("idle", 0, 0, "There is no job yet.", None, 0, None, None)
        return ServerSentEvent(state, event="progress", retry=retry_ms)
    status = "fitting" if job.status == "running" and job.phase == "fitting" else job.status
    state = _state(status, job.processed, job.total, job.message, job.id, job.skipped, job.rate, job.eta_s)
    return ServerSentEvent(state, event="progress", id=event_id(job), retry=retry_ms)


def _state(
    status: str,
    processed: int,
    total: int,
    message: str,
    job_id: str | None,
    skipped: int,
    rate: float | None,
    eta_s: float | None,
) -> str:
    fields = {
        "status": status,
        "processed": processed,
        "total": total,
        "message": message,
        "job_id": job_id,
        "skipped": skipped,
        "rate": rate,
        "eta_s": eta_s,
    }
    return json.dumps(fields, ensure_ascii=False, allow_nan=False)


async def progress_events(watch: Watch) -> AsyncIterator[ServerSentEvent]:
    """The events of one stream; the first also sets how soon a browser reconnects."""
    retry_ms: int | None = RETRY_MS
    async for job in watch.states():
        yield progress_event(job, retry_ms=retry_ms)
        retry_ms = None
