"""Reads the next part of a source while the one before it is written."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

PATIENCE_S = 1.0
"""A page is read in less, and a cancelled job that waits for a dead mount gives its place to another after this."""

T = TypeVar("T")


async def read_ahead(parts: Iterator[T]) -> AsyncGenerator[T]:
    """The parts of an iterator that blocks and yields no None; each is read in a thread while the one before is used.

    Close the generator, with `contextlib.aclosing`, before what the iterator reads from: its thread has ended then, or
    has hung for `PATIENCE_S` and ends with an error of the closed file when the disk answers.
    """
    reading = asyncio.create_task(asyncio.to_thread(next, parts, None))
    try:
        while (part := await asyncio.shield(reading)) is not None:
            reading = asyncio.create_task(asyncio.to_thread(next, parts, None))
            yield part
    finally:
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # asyncio logs unread errors
        await asyncio.wait([reading], timeout=PATIENCE_S)
