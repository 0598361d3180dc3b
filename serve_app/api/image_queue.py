"""Reads and decodes images for requests: a few at once, and no more bytes than the process can hold.

A thread cannot be stopped, so a place is given back when the thread has finished and not when its caller has gone. A
caller that goes while it waits leaves the queue.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException

from serve_app.api.departures import until_gone
from serve_app.errors import Overloaded

P = ParamSpec("P")
R = TypeVar("R")

MIB = 1 << 20
MAX_AT_ONCE = 4
"""Each thumbnail decodes an image of up to 50 Mpx, which takes about 150 MB of memory meanwhile."""
MAX_HELD_BYTES = 256 * MIB
"""An image has at most 64 MiB, and a client may take ten minutes to receive it."""


class ImageQueue:
    """Threads for one kind of work, and the number of bytes that answers hold.

    Args:
        name: the beginning of the threads' names.
        at_once: the number of threads.
        max_held_bytes: the limit for all answers together that are not sent yet.
    """

    def __init__(self, name: str, *, at_once: int = MAX_AT_ONCE, max_held_bytes: int = MAX_HELD_BYTES) -> None:
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=name)
        self._max_held_bytes = max_held_bytes
        self._held_bytes = 0

    async def entered(self, request: Request) -> AsyncIterator["Visit"]:
        """A visit for one request; what it holds is given back when its answer is sent."""
        visit = Visit(self, request)
        try:
            yield visit
        finally:
            self._held_bytes -= visit.held_bytes

    async def run(self, request: Request, work: Callable[[], R]) -> R:
        """See `Visit.run`."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        leaving = asyncio.create_task(until_gone(request.receive))
        try:
            await asyncio.wait((running, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise HTTPException(400, "The client left before its image was read.")
            return running.result()
        except MemoryError:
            raise Overloaded("The service is short of memory; try again later.") from None
        finally:
            running.cancel()  # takes it out of the queue, if no thread has begun it
            leaving.cancel()

    def hold(self, n_bytes: int) -> None:
        """See `Visit.hold`."""
        if self._held_bytes + n_bytes > self._max_held_bytes:
            raise Overloaded("Too many large images are being sent here; try again later.")
        self._held_bytes += n_bytes


class Visit:
    """What one request does in the queue."""

    def __init__(self, queue: ImageQueue, request: Request) -> None:
        self._queue = queue
        self._request = request
        self.held_bytes = 0

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function in a thread when it is its turn, and return its result or raise its error.

        Raises:
            HTTPException: the client has gone.
            Overloaded: there is not enough memory for the work.
        """
        return await self._queue.run(self._request, lambda: work(*args, **kwargs))

    def hold(self, data: bytes) -> bytes:
        """Count the bytes of an answer until it is sent, and return them.

        Raises:
            Overloaded: the answers that are being sent hold too many bytes already.
        """
        self._queue.hold(len(data))
        self.held_bytes += len(data)
        return data
