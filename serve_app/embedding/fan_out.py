"""Spreads many images over all replicas, as a bounded number of chunks at a time, and returns answers in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from serve_app.errors import Unavailable
from serve_app.services import Embedded, Outcomes

T = TypeVar("T")
R = TypeVar("R")


async def spread(
    embed: Callable[[Sequence[T]], Awaitable[R]], images: Sequence[T], *, chunk_images: int, window: int
) -> list[R]:
    """Embed images chunk by chunk and return the answer to each chunk, in order.

    Args:
        embed: sends one chunk to a replica.
        images: the images that are cut into chunks.
        chunk_images: the largest number of images in a chunk.
        window: the largest number of chunks under way at a time.

    Raises:
        ServiceError: a chunk raised it; the chunks under way are cancelled then.
    """
    starts = range(0, len(images), chunk_images)
    parts: dict[int, R] = {}
    waiting = iter(starts)

    async def send_chunks() -> None:
        for start in waiting:  # all senders share the iterator, so each takes the next free chunk
            parts[start] = await embed(images[start : start + chunk_images])

    senders = [asyncio.create_task(send_chunks()) for _ in range(min(window, len(starts)))]
    try:
        await asyncio.gather(*senders)
    finally:
        for sender in senders:
            sender.cancel()
    return [parts[start] for start in starts]


def joined(parts: Sequence[Embedded]) -> Embedded:
    """Join the answers to one or more chunks into one.

    Raises:
        Unavailable: the answers belong to different vector spaces.
    """
    if len({part.card.space_key for part in parts}) > 1:
        raise Unavailable("The model was replaced meanwhile; try again.")
    outcomes: Outcomes = []
    cut: list[int] = []
    for part in parts:
        cut += [len(outcomes) + place for place in part.cut]
        outcomes += part.outcomes
    return Embedded(parts[0].card, outcomes, tuple(cut))
