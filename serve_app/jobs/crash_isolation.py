"""Finds the image that kills its process, without blaming the images beside it.

When a replica crashes, every chunk it held fails, but only the image that caused the crash may be skipped. So each
failed chunk is tried again alone. A read-write lock ensures this: ordinary chunks are readers and run together, a
suspect chunk is a writer and runs alone, and no chunk begins while a suspect waits. A suspect that crashes again is
halved until one image is left (fault isolation by bisection, as in Ray Serve's fairchem batch server).
"""

from collections.abc import Awaitable, Callable

import numpy as np
from aiorwlock import RWLock

from serve_app.errors import WorkerCrashed
from serve_app.records import Block, Skip, SourceFile

LONE_CRASHES = 2
"""An image is blamed after this many crashes alone, because a single crash may be an unrelated kill."""

EmbedFiles = Callable[[list[SourceFile]], Awaitable[Block]]


async def embed_isolating_crashes(files: list[SourceFile], embed: EmbedFiles, isolation: RWLock) -> list[Block]:
    """Embed files; a file that kills its process becomes a skip with reason `crashed_worker`.

    All chunks that may run at the same time share the lock `isolation`, even chunks of different jobs.

    Returns:
        Blocks that together settle every file once; without a crash it is one block.
    """
    try:
        async with isolation.reader:
            return [await embed(files)]
    except WorkerCrashed:
        async with isolation.writer:
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
