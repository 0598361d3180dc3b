"""Finds the image that kills its process, without blaming the images beside it.

A crash of a replica fails every chunk it held. Only the guilty one may be skipped, so chunks that were in
a crash are tried again alone: of a lock, ordinary chunks are the readers, which run together, and a suspect is the
writer, which runs with nothing beside it; while one waits, no chunk begins. A suspect that crashes again is halved
until one image is left (idea: fault isolation by bisection, as in Ray Serve's fairchem batch server).
"""

from collections.abc import Awaitable, Callable

import numpy as np
from aiorwlock import RWLock

from serve_app.errors import WorkerCrashed
from serve_app.records import Block, Skip, SourceFile

LONE_CRASHES = 2
"""Crashes of one image alone before it is blamed: a single one may be an unrelated kill."""

EmbedFiles = Callable[[list[SourceFile]], Awaitable[Block]]


async def embed_isolating_crashes(files: list[SourceFile], embed: EmbedFiles, isolation: RWLock) -> list[Block]:
    """Embed files; those that kill their process become skips with reason `crashed_worker`.

    `isolation` is one lock for all chunks that may run at once, of whatever job.

    Returns:
        Blocks that together settle every file once: one block in the ordinary case.
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
