"""Waiting for what must come: tests end with the event, and the limit only ends a test that would wait for ever."""

import time
from collections.abc import Callable

PATIENCE_S = 240.0
"""Longer than anything takes on a machine that is slow and busy; no promise about the service."""


def until(condition: Callable[[], object], why: Callable[[], str] = lambda: "") -> float:
    """Wait until the condition holds; the seconds that took. Fails, with the reason, when it never does."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_S, f"not within {PATIENCE_S:.0f} s. {why()}"
        time.sleep(0.05)
    return time.monotonic() - began
