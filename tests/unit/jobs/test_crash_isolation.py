import asyncio

import numpy as np
import pytest

from serve_app.errors import WorkerCrashed
from serve_app.jobs.crash_isolation import Gate, embed_isolating_crashes
from serve_app.records import Block, FileStamp, SourceFile


def tasks_named(names: str) -> list[SourceFile]:
    return [SourceFile(name, name) for name in names]


class Crashing:
    """Embeds tasks; dies when a poisoned one is among them."""

    def __init__(self, poison: str) -> None:
        self.poison = poison
        self.calls: list[str] = []

    async def __call__(self, tasks: list[SourceFile]) -> Block:
        names = "".join(task.sample_id for task in tasks)
        self.calls.append(names)
        await asyncio.sleep(0)
        if set(self.poison) & set(names):
            raise WorkerCrashed("replica died")
        return Block(list(names), np.ones((len(names), 2), np.float32), [FileStamp("h", 1, 1)] * len(names))


async def settle(names: str, embed: Crashing) -> tuple[str, list[str]]:
    blocks = await embed_isolating_crashes(tasks_named(names), embed, Gate())
    embedded = "".join(i for block in blocks for i in block.sample_ids)
    return embedded, [skip.sample_id for block in blocks for skip in block.skips]


async def test_a_chunk_without_poison_is_embedded_in_one_call():
    embed = Crashing("")
    assert await settle("abcd", embed) == ("abcd", [])
    assert embed.calls == ["abcd"]


@pytest.mark.parametrize("poison", ["a", "d", "h", "ah", "abcdefgh"])
async def test_exactly_the_images_that_kill_their_process_are_skipped(poison: str):
    embedded, skipped = await settle("abcdefgh", Crashing(poison))
    assert skipped == list(poison)
    assert embedded == "".join(c for c in "abcdefgh" if c not in poison)


async def test_one_unrelated_crash_costs_a_retry_and_skips_nothing():
    embed = Crashing("")
    died = iter([True])

    async def dies_once(tasks: list[SourceFile]) -> Block:
        if next(died, False):
            raise WorkerCrashed("killed")
        return await embed(tasks)

    blocks = await embed_isolating_crashes(tasks_named("ab"), dies_once, Gate())
    assert [block.sample_ids for block in blocks] == [["a", "b"]]


async def test_a_suspect_runs_with_nothing_beside_it():
    gate = Gate()
    running = 0
    most_beside_suspect = 0

    async def ordinary() -> None:
        nonlocal running
        async with gate.shared():
            running += 1
            await asyncio.sleep(0)
            running -= 1

    async def suspect() -> None:
        nonlocal most_beside_suspect
        async with gate.exclusive():
            for _ in range(5):
                most_beside_suspect = max(most_beside_suspect, running)
                await asyncio.sleep(0)

    await asyncio.gather(ordinary(), ordinary(), suspect(), ordinary(), suspect(), ordinary())
    assert most_beside_suspect == 0


async def test_a_cancelled_waiter_does_not_block_the_gate():
    gate = Gate()
    async with gate.shared():
        waiting = asyncio.create_task(gate.exclusive().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(60), gate.shared():
        pass
