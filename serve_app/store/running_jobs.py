"""What is known of running jobs in memory alone: who works on which, and how fast they commit.

The writer's process keeps it, on the monotonic clock, and a restart forgets it. A lease only keeps runners from doing
the same work twice; what keeps them from doing harm is the attempt number.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

WINDOW_S = 10.0


class Lease(NamedTuple):
    """A runner and the end of its time."""

    runner_id: str | None
    until: float


class Leases:
    """Leases by job id. Used by the writer thread alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._leases: dict[str, Lease] = {}

    def grant(self, job_id: str, runner_id: str, lease_s: float) -> None:
        """Give a job to a runner."""
        self._leases[job_id] = Lease(runner_id, self._clock() + lease_s)

    def extend(self, job_id: str, lease_s: float) -> None:
        """Keep a job from others for longer; a writer that was restarted no longer knows for whom."""
        lease = self._leases.get(job_id)
        self._leases[job_id] = Lease(lease.runner_id if lease else None, self._clock() + lease_s)

    def drop(self, job_id: str) -> None:
        """Let anybody have the job."""
        self._leases.pop(job_id, None)

    def is_free(self, job_id: str, runner_id: str) -> bool:
        """Whether this runner may have the job: nobody holds it, or time is up, or it is the runner's own."""
        lease = self._leases.get(job_id)
        return lease is None or lease.runner_id == runner_id or lease.until <= self._clock()


class Pace:
    """Samples/s of each job over the commits of its last seconds. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._commits: dict[str, deque[tuple[float, int]]] = {}

    def start(self, job_id: str, processed: int) -> None:
        """Begin to measure an attempt that starts with `processed` samples already committed."""
        with self._lock:
            self._commits[job_id] = deque([(self._clock(), processed)])

    def note(self, job_id: str, processed: int) -> None:
        """Count a commit after which `processed` samples are committed."""
        now = self._clock()
        with self._lock:
            commits = self._commits.setdefault(job_id, deque())
            commits.append((now, processed))
            # The newest commit before the window stays: it is where the window's work began.
            while len(commits) > 2 and commits[1][0] <= now - WINDOW_S:
                commits.popleft()

    def stop(self, job_id: str) -> None:
        """Forget a job."""
        with self._lock:
            self._commits.pop(job_id, None)

    def rate(self, job_id: str) -> float | None:
        """Samples/s, or None before two commits and after a window without one."""
        with self._lock:
            commits = self._commits.get(job_id)
            if not commits or len(commits) < 2:
                return None
            (begin, first), (end, last) = commits[0], commits[-1]
            if self._clock() - end > WINDOW_S or end <= begin or last <= first:
                return None
            return (last - first) / (end - begin)
