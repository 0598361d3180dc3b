"""Reads the next part of a source while the one before it is written."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import TypeVar

T = TypeVar("T")


async def read_ahead(parts: Iterator[T]) -> AsyncGenerator[T]:
    """The parts of an iterator that blocks and yields no None; each is read in a thread while the one before is used.

    Close the generator, with `contextlib.aclosing`, before what the iterator reads from: its thread has ended then.
    """
    reading = asyncio.create_task(asyncio.to_thread(next, parts, None))
    try:
        while (part := await asyncio.shield(reading)) is not None:
            reading = asyncio.create_task(asyncio.to_thread(next, parts, None))
            yield part
    finally:
        await asyncio.wait([reading])
        if not reading.cancelled():
            reading.exception()  # or asyncio would log that nobody retrieved it
