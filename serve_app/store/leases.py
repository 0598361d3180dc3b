"""Who works on which job: kept in the writer's memory, on the monotonic clock.

A lease only keeps runners from doing the same work twice; what keeps them from doing harm is the attempt number.
"""

from collections.abc import Callable
from typing import NamedTuple


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
