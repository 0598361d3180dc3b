"""Batches that fill while the previous batch is computed.

Ray Serve's `@serve.batch` waits a fixed time for more images. This batcher computes a lone image at once, and the
images that arrive in the meantime form the next batch. Callers wait only for the model.
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
        embed: turns (B, S, S, 3) pixels into (B, D) vectors; calls have B ≥ 1 and never overlap.
        thread: runs `embed`.
        max_images: the largest B in a call of `embed`, unless a single caller brings more images.
    """

    def __init__(self, embed: Callable[[Pixels], VectorArray], thread: Executor, *, max_images: int) -> None:
        self._embed = embed
        self._thread = thread
        self._max_images = max_images
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def vectors(self, pixels: Pixels) -> VectorArray:
        """(B, D) vectors of (B, S, S, 3) pixels, B ≥ 1; an error of `embed` is raised in every caller of its batch."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(pixels, loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await waiting.vectors

    async def _work(self) -> None:
        """Compute batches until no caller waits."""
        try:
            while batch := self._next_batch():
                await self._compute(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> list[_Waiting]:
        """The callers that have waited longest and have not given up, with up to `max_images` images together."""
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
