import asyncio

import numpy as np
import pytest
from aiorwlock import RWLock

from serve_app.errors import WorkerCrashed
from serve_app.jobs.crash_isolation import embed_isolating_crashes
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
    blocks = await embed_isolating_crashes(tasks_named(names), embed, RWLock())
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

    blocks = await embed_isolating_crashes(tasks_named("ab"), dies_once, RWLock())
    assert [block.sample_ids for block in blocks] == [["a", "b"]]


async def several_turns() -> None:
    """Let every other task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


class Overlapping(Crashing):
    """Takes its time, and notes what runs beside the poisoned task once it is a suspect."""

    def __init__(self, poison: str) -> None:
        super().__init__(poison)
        self.running: list[str] = []
        self.beside_suspect: list[str] = []

    async def __call__(self, tasks: list[SourceFile]) -> Block:
        (name,) = (task.sample_id for task in tasks)
        is_suspect = name == self.poison and name in self.calls
        self.running.append(name)
        for _ in range(5):
            await asyncio.sleep(0)
            if is_suspect:
                self.beside_suspect += [other for other in self.running if other != name]
        self.running.remove(name)
        return await super().__call__(tasks)


async def test_a_suspect_is_tried_again_with_nothing_beside_it():
    embed, isolation = Overlapping("x"), RWLock()

    async def one_after_another(names: str) -> None:
        for name in names:
            await embed_isolating_crashes(tasks_named(name), embed, isolation)

    await asyncio.gather(*map(one_after_another, ["abcd", "efx", "ghij"]))
    assert sorted(embed.calls) == [*"abcdefghijxxx"]
    assert embed.beside_suspect == []


async def test_no_chunk_begins_while_a_suspect_waits():
    embed, isolation = Crashing("x"), RWLock()
    async with asyncio.TaskGroup() as chunks, isolation.reader:
        for name in "xa":
            chunks.create_task(embed_isolating_crashes(tasks_named(name), embed, isolation))
            await several_turns()
        assert embed.calls == ["x"]
    assert embed.calls == ["x", "x", "x", "a"]


async def test_a_cancelled_suspect_holds_nobody_up():
    embed, isolation = Crashing("x"), RWLock()
    async with isolation.reader:
        suspect = asyncio.create_task(embed_isolating_crashes(tasks_named("x"), embed, isolation))
        await several_turns()
        suspect.cancel()
        await asyncio.wait([suspect])
    async with asyncio.timeout(60):
        await embed_isolating_crashes(tasks_named("a"), embed, isolation)
    assert embed.calls == ["x", "a"]
