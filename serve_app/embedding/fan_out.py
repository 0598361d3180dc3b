"""Many images over all replicas: chunks, a bounded number of them under way at a time, answered in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from serve_app.errors import Unavailable
from serve_app.services import Embedded

T = TypeVar("T")
R = TypeVar("R")


async def spread(
    embed: Callable[[Sequence[T]], Awaitable[R]], images: Sequence[T], *, chunk_images: int, window: int
) -> list[R]:
    """Embed images by chunks: what `embed` gave for each, in order.

    Args:
        embed: sends one chunk to a replica.
        images: what `embed` takes chunks of.
        chunk_images: most images of a chunk.
        window: most chunks under way.

    Raises:
        ServiceError: what a chunk raised; the chunks under way are cancelled then.
    """
    starts = range(0, len(images), chunk_images)
    parts: dict[int, R] = {}
    waiting = iter(starts)

    async def send_chunks() -> None:
        for start in waiting:  # shared: each sender takes the next chunk that nobody has taken
            parts[start] = await embed(images[start : start + chunk_images])

    senders = [asyncio.create_task(send_chunks()) for _ in range(min(window, len(starts)))]
    try:
        await asyncio.gather(*senders)
    finally:
        for sender in senders:
            sender.cancel()
    return [parts[start] for start in starts]


def joined(parts: Sequence[Embedded]) -> Embedded:
    """At least one chunk's answers as one.

    Raises:
        Unavailable: they are of several vector spaces.
    """
    if len({part.card.space_key for part in parts}) > 1:
        raise Unavailable("The model was replaced while it embedded these images; try again.")
    return Embedded(parts[0].card, [outcome for part in parts for outcome in part.outcomes])
