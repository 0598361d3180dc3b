"""How fast running jobs commit: kept in the writer's memory, on the monotonic clock."""

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 10.0


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
