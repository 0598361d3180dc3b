"""What a piece of work costs beside another piece of work in the same process: seconds say more about the machine."""

import time
from collections.abc import Callable


def cpu_s(work: Callable[[], object], *, repeats: int = 3) -> float:
    """Seconds of this thread's CPU time that the work takes, the least of several tries."""

    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(repeats))
