"""The one rule by which calls to other processes are repeated: after a pause that doubles up to a longest one.

Only calls that may be repeated belong here: reads, fenced and numbered writes, and embedding.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from serve_app.errors import ServiceError

log = logging.getLogger("constellate.retrying")

R = TypeVar("R")

Errors = type[ServiceError] | tuple[type[ServiceError], ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """How long to pause, and when to give up: after `attempts` calls, or `patience_s` seconds after the first."""

    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0
    attempts: float = math.inf
    patience_s: float = math.inf

    async def until_answered(self, call: Callable[[], Awaitable[R]], *, on: Errors, but: Errors = (), what: str) -> R:
        """The result of a call, repeated when it raises one of `on` that is none of `but`.

        Raises:
            ServiceError: the last of those, when it is time to give up; any other error at once.
        """
        pause_s = self.first_pause_s
        clock = asyncio.get_running_loop().time
        began = clock()
        for attempt in count(1):
            try:
                return await call()
            except on as error:
                if isinstance(error, but) or attempt >= self.attempts or clock() - began > self.patience_s:
                    raise
                is_long = pause_s >= self.longest_pause_s
                log.log(logging.WARNING if is_long else logging.INFO, "%s is called again: %s", what, error.detail)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self.longest_pause_s)
        raise AssertionError("the loop above has no end")


UNTIL_BACK = Retry()
"""For the writer, which is restarted within seconds: a job that gave up would fail for nothing."""

FIRST_REPLICA = Retry(longest_pause_s=0.5, patience_s=180.0)
"""For a model whose first replica is being started."""

ANY_REPLICA = Retry(longest_pause_s=5.0, attempts=60)
"""For a chunk of a job that no replica has room for."""

SECOND_CHANCE = Retry(first_pause_s=0.2, attempts=3)
"""For a request that somebody waits for. A replica that dies takes its chunks with it, and most are not to blame."""
