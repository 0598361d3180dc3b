"""One attempt at an embed job: plan, fan out, stage, commit.

The job plans pages of pending samples: known vectors are staged without reading the file. It cuts the other samples
into chunks, which run under a window that all jobs share, and stages finished chunks in blocks of about 128 rows.
An attempt may stop at any point: the next attempt begins with the samples that are not yet staged.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from itertools import count
from typing import Protocol

import numpy as np
from aiorwlock import RWLock

from serve_app.errors import Conflict, ModelReplaced, RootUnavailable
from serve_app.jobs.crash_isolation import embed_isolating_crashes
from serve_app.jobs.retrying import ANY_REPLICA, FIRST_REPLICA, RIGHT_REPLICA
from serve_app.records import Block, Claim, ModelCard, SourceFile
from serve_app.services import Writer
from serve_app.sources.files import UNKNOWN
from serve_app.sources.reading import Reader
from serve_app.store.jobs import Jobs
from serve_app.store.skip_reasons import OUT_OF_REACH
from serve_app.store.vectors import Vectors

PAGE_SAMPLES = 2000
BLOCK_ROWS = 128
BLOCK_WAIT_S = 0.3
MAX_PASSES = 3
WITNESSES = 64


class FileEmbedder(Protocol):
    """Makes vectors of files; the replica reads the files itself."""

    async def describe(self, model: str) -> ModelCard:
        """Describe the model. Raises `ModelUnavailable`, or `Unavailable` while its first replica starts."""
        ...

    async def embed_files(self, model: str, root: str, files: list[SourceFile]) -> Block:
        """Settle every file with a new vector, a known vector or a skip.

        Raises:
            WorkerCrashed: the replica died during the call.
            Unavailable: no replica could take the call; the caller may repeat it.
        """
        ...


class EmbedJob:
    """One attempt at one claimed embed job."""

    def __init__(
        self,
        claim: Claim,
        *,
        writer: Writer,
        embedder: FileEmbedder,
        reader: Reader,
        isolation: RWLock,
        window: asyncio.Semaphore,
        chunk_images: int,
    ) -> None:
        self._job_id = claim.job.id
        self._attempt = claim.attempt
        self._model = claim.job.model_name or ""
        self._root = claim.dataset.root
        self._writer = writer
        self._embedder = embedder
        self._reader = reader
        self._isolation = isolation
        self._window = window
        self._chunk_images = chunk_images
        self._block_no = count(1)
        self._space_key = ""
        self._seen: deque[SourceFile] = deque(maxlen=WITNESSES)

    async def run(self, *, when_begun: Callable[[], Awaitable[None]]) -> None:
        """Run the job until it is `complete`, or raise.

        Raises:
            StaleAttempt: the job was cancelled, or another runner claimed it; this attempt has nothing left to do.
            ServiceError: the job cannot succeed; the message says why.
        """
        card = await self._describe()
        self._space_key = card.space_key
        await self._writer.ask(Jobs.begin, self._job_id, self._attempt, card)
        await when_begun()
        for _ in range(MAX_PASSES):
            if await self._one_pass() == 0:
                break
        await self._writer.ask(Vectors.commit, self._job_id, self._attempt)

    async def _describe(self) -> ModelCard:
        """Wait for the model's first replica and return the model's card."""
        return await FIRST_REPLICA.until_answered(lambda: self._embedder.describe(self._model), what=self._model)

    async def _one_pass(self) -> int:
        """Settle all samples that are pending now and return their number.

        A sample stays pending only when its known vector disappears during the pass; the next pass embeds it.
        """
        finished: asyncio.Queue[Block | None] = asyncio.Queue(maxsize=64)
        try:
            async with asyncio.TaskGroup() as stages:
                stages.create_task(self._stage(finished))
                n_pending = await self._fan_out(finished)
                await finished.put(None)
        except BaseExceptionGroup as group:
            raise _first_leaf(group) from group
        return n_pending

    async def _fan_out(self, finished: asyncio.Queue[Block | None]) -> int:
        """Send every pending sample to a replica, as the window allows, and return when all chunks are finished."""
        n_pending = 0
        async with asyncio.TaskGroup() as chunks:
            async for files, n_observed in self._pages():
                n_pending += n_observed
                for start in range(0, len(files), self._chunk_images):
                    await self._window.acquire()
                    chunk = chunks.create_task(self._embed_chunk(files[start : start + self._chunk_images], finished))
                    # A `finally` in the task would not do: a task cancelled before its first step never enters it.
                    chunk.add_done_callback(lambda _: self._window.release())
        return n_pending

    async def _pages(self) -> AsyncIterator[tuple[list[SourceFile], int]]:
        """Pages of files to read, each with the number of pending samples from which it was planned."""
        after = -1
        while page := await self._writer.ask(Jobs.pending, self._job_id, after=after, limit=PAGE_SAMPLES):
            after = page[-1].ordinal
            stats = await asyncio.to_thread(self._reader.examine, self._root, page)
            observed = [
                replace(sample, size_bytes=size_bytes, mtime_ns=mtime_ns)
                for sample, (size_bytes, mtime_ns) in zip(page, stats, strict=True)
            ]
            there = [sample for sample, stat in zip(page, stats, strict=True) if stat != UNKNOWN]
            self._seen.extend(there[:: len(there) // WITNESSES + 1])
            yield await self._writer.ask(Vectors.plan, self._job_id, self._attempt, observed), len(page)

    async def _embed_chunk(self, files: list[SourceFile], finished: asyncio.Queue[Block | None]) -> None:
        """Embed one chunk and put its blocks into the queue."""
        for block in await embed_isolating_crashes(files, self._embed_in_space, self._isolation):
            if any(skip.reason in OUT_OF_REACH for skip in block.skips):
                await self._require_root()
            await finished.put(block)

    async def _require_root(self) -> None:
        """Make sure that single files are missing and not the whole folder, where files seen earlier are gone too.

        Raises:
            RootUnavailable: the folder is missing; skipping its files would remove good vectors from the dataset.
        """
        if not self._seen:
            return  # no file was seen so far; the commit checks how many files are gone
        if not await asyncio.to_thread(self._reader.is_any_there, self._root, list(self._seen)):
            raise RootUnavailable(
                "the dataset's folder is gone or out of reach. If it was removed on purpose, rescan the dataset. "
                "Earlier embeddings are kept"
            )

    async def _embed_in_space(self, files: list[SourceFile]) -> Block:
        """Call a replica, and repeat the call a few times while the answers belong to another space than the job."""
        return await RIGHT_REPLICA.until_answered(
            lambda: self._embed_patiently(files), what=f"a replica of {self._model} in the job's space"
        )

    async def _embed_patiently(self, files: list[SourceFile]) -> Block:
        """Call a replica, and repeat the call while no replica can take it."""
        block = await ANY_REPLICA.until_answered(
            lambda: self._embedder.embed_files(self._model, self._root, files),
            what=f"a replica of {self._model}",
        )
        if block.n_samples != len(files):
            raise Conflict(f"a replica settled {block.n_samples} of {len(files)} images")
        if block.sample_ids and block.space_key != self._space_key:
            raise ModelReplaced(
                f"the weights or the precision of {self._model} changed during the job; generate again. "
                "Earlier embeddings are kept"
            )
        return block

    async def _stage(self, finished: "asyncio.Queue[Block | None]") -> None:
        """Stage finished blocks, in one numbered write after another, until None arrives."""
        done = False
        while not done:
            block = await finished.get()
            if block is None:
                return
            gathered = [block]
            deadline = asyncio.get_running_loop().time() + BLOCK_WAIT_S
            while sum(b.n_samples for b in gathered) < BLOCK_ROWS and not done:
                try:
                    async with asyncio.timeout_at(deadline):
                        more = await finished.get()
                except TimeoutError:
                    break
                if more is None:
                    done = True
                else:
                    gathered.append(more)
            merged = _merge(gathered)
            await self._writer.ask(Vectors.put_block, self._job_id, self._attempt, next(self._block_no), merged)


def _merge(blocks: list[Block]) -> Block:
    """Merge blocks into one; empty arrays of vectors are left out, because they have no dimension."""
    vectors = [block.vectors for block in blocks if len(block.vectors)]
    return Block(
        sample_ids=[i for block in blocks for i in block.sample_ids],
        vectors=np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32),
        stamps=[s for block in blocks for s in block.stamps],
        known=[k for block in blocks for k in block.known],
        skips=[s for block in blocks for s in block.skips],
        space_key=next((block.space_key for block in blocks if block.sample_ids), ""),
    )


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that ended a group of tasks; the other tasks were cancelled because of it."""
    first = group.exceptions[0]
    return _first_leaf(first) if isinstance(first, BaseExceptionGroup) else first
