"""Tells of a job's progress once a second, while another coroutine waits for its result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from serve_app.errors import ServiceError

T = TypeVar("T")

TELL_S = 1.0


@asynccontextmanager
async def telling(now: Callable[[], T], send: Callable[[T], Awaitable[None]]) -> AsyncIterator[None]:
    """Send what `now` returns whenever it has changed since the block began, until the block ends.

    A refusal ends the telling silently, because the end of the job will raise for a lost job or an outage.
    """
    task = asyncio.create_task(_tell(now, send, now()))
    try:
        yield
    finally:
        task.cancel()


async def _tell(now: Callable[[], T], send: Callable[[T], Awaitable[None]], told: T) -> None:
    while True:
        await asyncio.sleep(TELL_S)
        if (current := now()) != told:
            told = current
            try:
                await send(told)
            except ServiceError:
                return
