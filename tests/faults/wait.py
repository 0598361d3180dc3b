"""Waiting for something to become true, with a limit and a reason."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], timeout_s: float, why: Callable[[], str] = lambda: "") -> float:
    """Wait until the condition holds; the seconds that took. Fails when it does not within the limit."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s:.0f} s. {why()}"
        time.sleep(0.05)
    return time.monotonic() - began
