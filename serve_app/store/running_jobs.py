"""What the writer keeps in memory about running jobs: which runner holds which job, and how fast jobs commit.

All times are of the monotonic clock, and a restart of the writer loses them. A lease only saves runners from doing
the same work twice; the attempt number keeps them from doing harm.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import NamedTuple

WINDOW_S = 10.0


class Lease(NamedTuple):
    """The runner that holds a job, and the time at which the lease ends."""

    runner_id: str | None
    until: float


class Leases:
    """Leases by job id. Only the writer thread uses them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._leases: dict[str, Lease] = {}

    def grant(self, job_id: str, runner_id: str, lease_s: float) -> None:
        """Lease a job to a runner for `lease_s` seconds."""
        self._leases[job_id] = Lease(runner_id, self._clock() + lease_s)

    def extend(self, job_id: str, lease_s: float) -> None:
        """Extend a job's lease; a restarted writer does not know the runner and stores None for it."""
        lease = self._leases.get(job_id)
        self._leases[job_id] = Lease(lease.runner_id if lease else None, self._clock() + lease_s)

    def drop(self, job_id: str) -> None:
        """End the job's lease, so that any runner may claim the job."""
        self._leases.pop(job_id, None)

    def keep(self, job_ids: Collection[str]) -> None:
        """End the leases of all other jobs, which are over."""
        for job_id in self._leases.keys() - set(job_ids):
            del self._leases[job_id]

    def is_free(self, job_id: str, runner_id: str) -> bool:
        """Whether this runner may claim the job: there is no lease, the lease has ended, or the runner holds it."""
        lease = self._leases.get(job_id)
        return lease is None or lease.runner_id == runner_id or lease.until <= self._clock()


class Pace:
    """Samples/s of each job over the last `WINDOW_S` seconds. Several threads may use one `Pace`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._commits: dict[str, deque[tuple[float, int]]] = {}

    def start(self, job_id: str, processed: int) -> None:
        """Start measuring an attempt that begins with `processed` samples already committed."""
        with self._lock:
            self._commits[job_id] = deque([(self._clock(), processed)])

    def note(self, job_id: str, processed: int) -> None:
        """Record a commit that brought the committed samples to `processed`."""
        now = self._clock()
        with self._lock:
            commits = self._commits.setdefault(job_id, deque())
            commits.append((now, processed))
            # The newest commit before the window stays, because the work of the window began there.
            while len(commits) > 2 and commits[1][0] <= now - WINDOW_S:
                commits.popleft()

    def stop(self, job_id: str) -> None:
        """Stop measuring a job."""
        with self._lock:
            self._commits.pop(job_id, None)

    def rate(self, job_id: str) -> float | None:
        """Samples/s, or None before the second commit and after a window without commits."""
        with self._lock:
            commits = self._commits.get(job_id)
            if not commits or len(commits) < 2:
                return None
            (begin, first), (end, last) = commits[0], commits[-1]
            if self._clock() - end > WINDOW_S or end <= begin or last <= first:
                return None
            return (last - first) / (end - begin)
