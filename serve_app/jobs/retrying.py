"""The one rule for repeating calls to other processes: pauses between the calls double up to a longest pause.

The rule is only for calls that may be repeated: reads, fenced writes, numbered writes, and embedding.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from serve_app.errors import (
    Conflict,
    ModelReplaced,
    ModelUnavailable,
    Overloaded,
    ServiceError,
    StaleAttempt,
    Unavailable,
    WorkerCrashed,
)

log = logging.getLogger("constellate.retrying")

R = TypeVar("R")

Errors = type[ServiceError] | tuple[type[ServiceError], ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call is repeated: it raised an error of `on` that is not also of `but`, and no limit is reached.

    The limits are `attempts` calls and `patience_s` seconds.
    """

    on: Errors
    but: Errors = ()
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0
    attempts: float = math.inf
    patience_s: float = math.inf

    async def until_answered(self, call: Callable[[], Awaitable[R]], *, what: str) -> R:
        """Return the result of a call, repeated by this rule; `what` names the called process in the log.

        Raises:
            ServiceError: the last error when the limits are reached; other errors are raised at once.
        """
        pause_s = self.first_pause_s
        clock = asyncio.get_running_loop().time
        began = clock()
        attempt = 0
        while True:
            attempt += 1
            try:
                return await call()
            except self.on as error:
                if isinstance(error, self.but) or attempt >= self.attempts or clock() - began > self.patience_s:
                    raise
                is_long = pause_s >= self.longest_pause_s
                log.log(logging.WARNING if is_long else logging.INFO, "%s is called again: %s", what, error.detail)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self.longest_pause_s)


UNTIL_BACK = Retry(on=Unavailable)
"""The rule for the writer: it is restarted within seconds, and a job that gave up would fail without need."""

FIRST_REPLICA = Retry(on=Unavailable, but=ModelUnavailable, longest_pause_s=0.5, patience_s=180.0)
"""The rule for a model whose first replica is starting."""

ANY_REPLICA = Retry(on=Unavailable, but=(WorkerCrashed, ModelUnavailable), longest_pause_s=5.0, attempts=60)
"""The rule for a job's chunk when no replica has room."""

RIGHT_REPLICA = Retry(on=ModelReplaced, attempts=5)
"""The rule for a chunk whose vectors belong to another space: while replicas are replaced, there are both kinds."""

SECOND_CHANCE = Retry(on=(WorkerCrashed, Overloaded), first_pause_s=0.2, attempts=3)
"""The rule for a request whose client waits. A dying replica fails all its chunks, and most of them did no harm."""

NOTIFY = Retry(on=Unavailable, first_pause_s=1.0, longest_pause_s=60.0, attempts=8)
"""The rule for a webhook: its receiver may be restarting, which takes two minutes at most."""

FIT_AGAIN = Retry(on=(WorkerCrashed, Conflict), but=StaleAttempt, attempts=3)
"""The rule for a map whose process died or whose vectors were replaced before the fit began.

A map that needs more memory than there is ends its process each time.
"""
