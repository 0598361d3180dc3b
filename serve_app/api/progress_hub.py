"""Progress streams: each process polls the job table once and passes the states on to every stream.

A stream carries state and is no log: each client gets the newest state, and older states are dropped. A slow client
therefore costs nothing, and a late client misses nothing.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from functools import lru_cache

from sse_starlette.event import ServerSentEvent

from serve_app.errors import JobNotFound, Overloaded, Unavailable
from serve_app.records import TERMINAL, Job, JobKind
from serve_app.services import Services
from serve_app.store.jobs import Jobs

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.5
MAX_PAUSE_S = 5.0
MAX_STREAMS = 300
"""The limit of one process; two processes hold the 500 promised streams even if they share them unevenly."""
RETRY_MS = 1500
PING_S = 30.0
PING = b": ping\r\n"
"""A comment line that keeps an idle connection alive.

It lacks the usual blank line at the end, because httpx-sse 0.4.3 takes a comment and a blank line for an event without
data once an event has had an `id`. The next event or ping begins on a new line in any case.
"""

EVENTS_PER_S = 10.0
"""Progress events of all streams of a process: on Serve, an event costs a millisecond here and in the proxy."""


TURN_STREAMS = 20
TURN_S = 0.1
"""A stream's first state and a job's last are not subject to `EVENTS_PER_S`. They are sent in groups so that requests
run in between."""


class Watch:
    """One stream's place at the hub.

    It follows one job from the first state it sees to the terminal state. Without a job it waits for the first one.
    A `job` that it is given is the one that it follows, even if a newer one has begun before the first state.
    """

    def __init__(
        self, dataset_id: str, kind: JobKind, on_close: "Callable[[Watch], None]", job: Job | None = None
    ) -> None:
        self.key: tuple[str, JobKind] = (dataset_id, kind)
        self.job = job
        self.told_at = 0.0
        self._has_state = False
        self._is_closed = False
        self._changed = asyncio.Event()
        self._on_close = on_close

    def is_new(self, job: Job | None) -> bool:
        """Whether this state differs from the stream's last state."""
        return not self._has_state or _version(job) != _version(self.job)

    def can_wait(self, job: Job | None) -> bool:
        """Whether this state may be sent later or never: it is neither the stream's first state nor terminal.

        The beginning of a job may wait, because hundreds of streams that waited for the job would all have it at once,
        and it says no more than the next state does.
        """
        return self._has_state and job is not None and job.status not in TERMINAL

    def offer(self, job: Job | None) -> None:
        """Take the newest state; a state that the stream already has does not wake it."""
        if job is None and self.job is not None:
            self.close()  # the dataset was deleted
        elif self.is_new(job):
            self.job = job
            self._has_state = True
            self._changed.set()

    def close(self) -> None:
        """Free the place and end the stream; a second call does nothing."""
        self._is_closed = True
        self._changed.set()
        self._on_close(self)

    async def changed(self) -> bool:
        """Wait for the next new state and return True, or return False once the stream is closed."""
        await self._changed.wait()
        self._changed.clear()
        return not self._is_closed


class ProgressHub:
    """The open streams of this process, and the one task that polls for all of them."""

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
        self._watches: set[Watch] = set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._allowance = 0.0
        self._polled_at = 0.0

    def __len__(self) -> int:
        """The number of open streams."""
        return len(self._watches)

    def watch(self, dataset_id: str, kind: JobKind, job: Job | None = None) -> Watch:
        """Open a stream; its first state is read after this call and so shows a job created before the call.

        It follows `job`, or the newest of this dataset and kind. The stream occupies its place until `Watch.close`.

        Raises:
            Overloaded: too many streams are open.
        """
        if len(self._watches) >= self._max_streams:
            raise Overloaded(f"{self._max_streams} progress streams are open; poll GET /jobs/{{id}} instead.")
        watch = Watch(dataset_id, kind, self._watches.discard, job)
        self._watches.add(watch)
        self._woken.set()
        if self._task is None or self._task.done():
            # The task has its own context, because it outlives the request that starts it.
            self._task = asyncio.create_task(self._run(), name="progress-hub", context=Context())
        return watch

    async def _run(self) -> None:
        pause_s = self._poll_interval_s
        try:
            while self._watches:
                self._woken.clear()
                self._find_services().on_streams(len(self._watches))
                try:
                    await self._poll()
                    pause_s = self._poll_interval_s
                except Unavailable as error:
                    pause_s = min(2 * pause_s, MAX_PAUSE_S)
                    logger.warning("progress cannot be read, next try in %.1f s: %s", pause_s, error.detail)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._woken.wait()
            self._find_services().on_streams(0)
        except Exception:
            # Clients reconnect when their stream ends without a terminal state; on a silent stream they would hang.
            logger.exception("the progress poll failed; its streams end")
            for watch in list(self._watches):
                watch.close()

    async def _poll(self) -> None:
        """Read the newest job of every stream; streams that open meanwhile wait for the next poll."""
        ask = self._find_services().writer.ask
        watches = list(self._watches)
        keys = sorted({watch.key for watch in watches})
        newest = dict(zip(keys, await ask(Jobs.latest, keys), strict=True))
        states: dict[str, Job | None] = {job.id: job for job in newest.values() if job is not None}
        urgent: list[tuple[Watch, Job | None]] = []
        waiting: list[tuple[Watch, Job | None]] = []
        for watch in watches:
            job = newest[watch.key]
            if job is not None and watch.job is not None and watch.job.id != job.id:
                # Between two polls, the followed job ended and a newer job began.
                if watch.job.id not in states:
                    states[watch.job.id] = await self._read(watch.job.id)
                job = states[watch.job.id]
            if watch.is_new(job):
                (waiting if watch.can_wait(job) else urgent).append((watch, job))
        self._tell_in_turns(waiting)
        for start in range(0, len(urgent), TURN_STREAMS):
            if start:
                await asyncio.sleep(TURN_S)
            for watch, job in urgent[start : start + TURN_STREAMS]:
                watch.offer(job)

    def _tell_in_turns(self, waiting: list[tuple[Watch, Job | None]]) -> None:
        """Offer new states at `EVENTS_PER_S`, and first to the streams that have waited longest."""
        now = asyncio.get_running_loop().time()
        self._allowance = min(self._allowance + (now - self._polled_at) * EVENTS_PER_S, EVENTS_PER_S)
        self._polled_at = now
        waiting.sort(key=lambda turn: turn[0].told_at)
        for watch, job in waiting[: int(self._allowance)]:
            watch.told_at = now
            watch.offer(job)
            self._allowance -= 1

    async def _read(self, job_id: str) -> Job | None:
        try:
            return await self._find_services().writer.ask(Jobs.get, job_id)
        except JobNotFound:
            return None


def _version(job: Job | None) -> tuple[str, int, str, str] | None:
    return None if job is None else (job.id, job.seq, job.status, job.phase)


def event_id(job: Job) -> str:
    """The id of a job's newest event; a client sends it back as `Last-Event-ID`."""
    return f"{job.id}:{job.seq}"


def has_seen_end(job: Job | None, last_event_id: str) -> bool:
    """Whether a reconnecting client already has the terminal state; the answer 204 then stops an `EventSource`."""
    return job is not None and job.status in TERMINAL and event_id(job) == last_event_id


def state_of(job: Job | None) -> dict[str, object]:
    """The data of an event; `job` is None for a dataset without a job."""
    if job is None:
        none = dict.fromkeys(("job_id", "rate", "eta_s"))
        return {"status": "idle", "processed": 0, "total": 0, "message": "There is no job yet.", "skipped": 0} | none
    return {
        "status": "fitting" if job.status == "running" and job.phase == "fitting" else job.status,
        "processed": job.processed,
        "total": job.total,
        "message": job.message,
        "job_id": job.id,
        "skipped": job.skipped,
        "rate": job.rate,
        "eta_s": job.eta_s,
    }


@lru_cache(maxsize=64)
def progress_event(job: Job | None, *, retry_ms: int | None = None) -> bytes:
    """Encode one state as an event. All streams of a job send the same states, so the cache saves encoding."""
    data = json.dumps(state_of(job), ensure_ascii=False, allow_nan=False)
    version = None if job is None else event_id(job)
    return ServerSentEvent(data, event="progress", id=version, retry=retry_ms).encode()


async def progress_events(watch: Watch) -> AsyncIterator[bytes]:
    """The events of one stream up to the terminal state; the first also sets the pause before a browser reconnects."""
    retry_ms: int | None = RETRY_MS
    while True:
        try:
            async with asyncio.timeout(PING_S):
                if not await watch.changed():
                    return
        except TimeoutError:
            yield PING
            continue
        job = watch.job
        yield progress_event(job, retry_ms=retry_ms)
        if job is not None and job.status in TERMINAL:
            return
        retry_ms = None
