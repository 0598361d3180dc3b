"""Batches that fill while the one before is computed.

Ray Serve's `@serve.batch` waits a fixed time for company. Here an image that comes alone is computed at once, and
what arrives in the meantime goes together: nobody waits for anything but the model.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from serve_app.embedding.chunk import Pixels
from serve_app.records import VectorArray


@dataclass(slots=True, eq=False)
class _Waiting:
    pixels: Pixels
    vectors: asyncio.Future[VectorArray]


class Batcher:
    """Runs one model for concurrent callers of one event loop.

    Args:
        embed: (B, S, S, 3) pixels to (B, D) vectors; called with at least one image, never twice at a time.
        thread: where `embed` runs.
        max_images: most images of one call of `embed`, unless a single caller brings more.
    """

    def __init__(self, embed: Callable[[Pixels], VectorArray], thread: Executor, *, max_images: int) -> None:
        self._embed = embed
        self._thread = thread
        self._max_images = max_images
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def vectors(self, pixels: Pixels) -> VectorArray:
        """(B, D) vectors of (B, S, S, 3) pixels, B ≥ 1; what `embed` raises for the batch is raised to all in it."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(pixels, loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await waiting.vectors

    async def _work(self) -> None:
        """Compute until nobody waits."""
        try:
            while batch := self._next_batch():
                await self._compute(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> list[_Waiting]:
        """Those who have waited longest and have not given up, up to `max_images` together."""
        batch: list[_Waiting] = []
        n_images = 0
        while self._waiting:
            first = self._waiting[0]
            if batch and n_images + len(first.pixels) > self._max_images:
                break
            self._waiting.popleft()
            if not first.vectors.done():
                batch.append(first)
                n_images += len(first.pixels)
        return batch

    async def _compute(self, batch: list[_Waiting]) -> None:
        try:
            joined = batch[0].pixels if len(batch) == 1 else np.concatenate([waiting.pixels for waiting in batch])
            vectors = await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, joined)
        except Exception as error:
            for waiting in batch:
                if not waiting.vectors.done():
                    waiting.vectors.set_exception(error)
            return
        start = 0
        for waiting in batch:
            end = start + len(waiting.pixels)
            if not waiting.vectors.done():
                waiting.vectors.set_result(vectors[start:end])
            start = end
