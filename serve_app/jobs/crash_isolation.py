"""Finds the image that kills its process, without blaming the images beside it.

A crash of a replica fails every chunk it held. Only the guilty one may be skipped, so chunks that were in
a crash are tried again alone: `Gate` lets ordinary chunks run together and a suspect run with nothing
beside it. A suspect that crashes again is halved until one image is left (idea: fault isolation by
bisection, as in Ray Serve's fairchem batch server).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np

from serve_app.errors import WorkerCrashed
from serve_app.records import Block, Skip, SourceFile

LONE_CRASHES = 2
"""Crashes of one image alone before it is blamed: a single one may be an unrelated kill."""

EmbedFiles = Callable[[list[SourceFile]], Awaitable[Block]]


class Gate:
    """A shared/exclusive lock for asyncio; a waiting exclusive holder stops new shared ones."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._n_shared = 0
        self._n_waiting = 0
        self._exclusive = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Run beside other shared holders."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._exclusive and not self._n_waiting)
            self._n_shared += 1
        try:
            yield
        finally:
            async with self._changed:
                self._n_shared -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Run alone."""
        async with self._changed:
            self._n_waiting += 1
            try:
                await self._changed.wait_for(lambda: not self._exclusive and not self._n_shared)
                self._exclusive = True
            finally:
                self._n_waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            async with self._changed:
                self._exclusive = False
                self._changed.notify_all()


async def embed_isolating_crashes(files: list[SourceFile], embed: EmbedFiles, gate: Gate) -> list[Block]:
    """Embed files; those that kill their process become skips with reason `crashed_worker`.

    Returns:
        Blocks that together settle every file once: one block in the ordinary case.
    """
    try:
        async with gate.shared():
            return [await embed(files)]
    except WorkerCrashed:
        async with gate.exclusive():
            return await _embed_alone(files, embed)


async def _embed_alone(files: list[SourceFile], embed: EmbedFiles) -> list[Block]:
    for _ in range(LONE_CRASHES if len(files) == 1 else 1):
        try:
            return [await embed(files)]
        except WorkerCrashed:
            continue
    if len(files) == 1:
        return [_blame(files[0])]
    half = len(files) // 2
    return await _embed_alone(files[:half], embed) + await _embed_alone(files[half:], embed)


def _blame(file: SourceFile) -> Block:
    skip = Skip(file.sample_id, file.file_name, "crashed_worker", "the process died each time it read this image alone")
    return Block(sample_ids=[], vectors=np.empty((0, 0), np.float32), stamps=[], skips=[skip])
