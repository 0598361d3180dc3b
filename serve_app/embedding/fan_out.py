"""Many images of one request over all replicas: chunks, a bounded number of them under way at a time.

The job loop has a window of its own (`Policy.window`); this one is smaller, so that requests which somebody
waits for and a running job share the replicas.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from serve_app.errors import Overloaded, Saturated, ServiceError, TooLarge, Unavailable, WorkerCrashed
from serve_app.records import Skip
from serve_app.services import Embedded, Services

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3
"""Calls for one chunk: a replica that dies takes every chunk it holds with it, and most are not to blame."""
FIRST_PAUSE_S = 0.2


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
            parts[start] = await _insist(embed, images[start : start + chunk_images])

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


async def _insist(embed: Callable[[Sequence[T]], Awaitable[R]], chunk: Sequence[T]) -> R:
    pause_s = FIRST_PAUSE_S
    for _ in range(ATTEMPTS - 1):
        try:
            return await embed(chunk)
        except (WorkerCrashed, Overloaded):
            await asyncio.sleep(pause_s)
            pause_s *= 2
    return await embed(chunk)


class FanOut:
    """What one process embeds for requests that wait: bounded by request and in total."""

    def __init__(self, find_services: Callable[[], Services]) -> None:
        self._find_services = find_services
        self._n_images = 0

    async def embed(self, images: list[bytes]) -> Embedded:
        """Embed at least one encoded image with the default model.

        Raises:
            TooLarge: more images than `Policy.request_images`.
            Saturated: with them the process would have more than twice that many under way.
            Unavailable: the model was replaced meanwhile.
            ServiceError: what a replica raised; or a vector is not finite.
        """
        services = self._find_services()
        policy = services.policy
        if len(images) > policy.request_images:
            raise TooLarge(f"A request takes at most {policy.request_images} images; this one has {len(images)}.")
        share = math.ceil(len(images) / policy.max_replicas)
        with self._admitted(len(images), 2 * policy.request_images):
            parts = await spread(
                lambda chunk: services.embedder.embed(services.settings.model, list(chunk)),
                images,
                chunk_images=max(1, min(policy.chunk_images, share)),
                window=policy.max_replicas * policy.target_ongoing,
            )
        embedded = joined(parts)
        if not all(isinstance(outcome, Skip) or np.isfinite(outcome).all() for outcome in embedded.outcomes):
            raise ServiceError("The model gave a vector that is not finite.")
        return embedded

    @contextmanager
    def _admitted(self, n_images: int, most: int) -> Iterator[None]:
        if self._n_images + n_images > most:
            raise Saturated(f"{self._n_images} images are being embedded here and {most} may be; try again later.")
        self._n_images += n_images
        try:
            yield
        finally:
            self._n_images -= n_images
