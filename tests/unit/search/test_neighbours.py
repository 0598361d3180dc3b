"""What of the vectors is kept in memory, and for how long."""

import asyncio
import threading

import pytest

from serve_app.errors import Overloaded
from serve_app.search.neighbours import LONG_AT_ONCE, Neighbours
from serve_app.store.vectors import Vectors
from tests.unit.search.conftest import FILES
from tests.unit.store.workbench import DIMENSION, source_files


class CountingWriter:
    """A store that counts how often the vectors of which dataset are read; `fault` is raised by the next read."""

    def __init__(self, store):
        self._store = store
        self.read = []
        self.fault = None

    async def ask(self, method, *args, **kwargs):
        if method is Vectors.read:
            self.read += args
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
        return await self._store.ask(method, *args, **kwargs)


@pytest.fixture
def writer(store):
    return CountingWriter(store)


@pytest.fixture
def others(bench):
    """Two more datasets with vectors."""
    datasets = []
    for name in ("second", "third"):
        files = source_files(2, prefix=name)
        datasets.append(bench.register(files, name=name))
        bench.embed(datasets[-1], files)
    return datasets


async def test_however_many_ask_at_once_the_vectors_are_read_once(writer, dataset):
    neighbours = Neighbours(writer)
    await asyncio.gather(*(neighbours.similar(dataset.id, FILES[0].sample_id, 2) for _ in range(10)))
    await neighbours.outliers(dataset.id, 1, 1)
    assert writer.read == [dataset.id]


async def test_vectors_are_read_again_when_they_have_changed(writer, bench, dataset):
    neighbours = Neighbours(writer)
    await neighbours.diverse(dataset.id, 1)
    bench.embed(dataset, FILES, force=True)
    await neighbours.diverse(dataset.id, 1)
    bench.datasets.rescan(bench.scan(FILES[1:]), dataset.id)
    assert len(await neighbours.diverse(dataset.id, 3)) == 2
    assert writer.read == [dataset.id] * 3


async def test_a_read_that_failed_is_tried_again_at_the_next_question(writer, dataset):
    neighbours = Neighbours(writer)
    writer.fault = OSError("the writer went away")
    with pytest.raises(OSError, match="went away"):
        await neighbours.diverse(dataset.id, 1)
    assert len(await neighbours.diverse(dataset.id, 1)) == 1


async def test_what_was_not_asked_about_for_longest_makes_room(writer, dataset, others):
    second, third = others
    room_for_two = 4 * DIMENSION * (len(FILES) + 2)
    neighbours = Neighbours(writer, memory_bytes=room_for_two)
    for asked in (dataset, second, dataset, third):
        await neighbours.diverse(asked.id, 1)
    writer.read.clear()
    for asked in (dataset, third, second):
        await neighbours.diverse(asked.id, 1)
    assert writer.read == [second.id]


async def test_one_set_that_is_larger_than_the_memory_is_kept_alone(writer, dataset):
    neighbours = Neighbours(writer, memory_bytes=1)
    for _ in range(2):
        await neighbours.diverse(dataset.id, 1)
    assert writer.read == [dataset.id]


async def test_a_forgotten_dataset_takes_no_memory(writer, dataset):
    neighbours = Neighbours(writer)
    await neighbours.diverse(dataset.id, 1)
    assert neighbours._held_bytes() > 0
    await neighbours.forget(dataset.id)
    await neighbours.forget("never loaded")
    assert neighbours._held_bytes() == 0


async def test_a_long_question_ends_with_its_caller_and_only_few_run_at_once():
    """A caller that stops waiting left its thread behind, and each retry added one."""
    neighbours = Neighbours(writer=None)
    loop = asyncio.get_running_loop()
    started, steps = asyncio.Semaphore(0), threading.Event()
    ended = []

    def work(on_step):
        loop.call_soon_threadsafe(started.release)
        steps.wait()
        try:
            on_step(1, 2)
        except Exception as error:
            ended.append(type(error).__name__)
            raise
        return "an answer"

    asking = [asyncio.create_task(neighbours._long(work)) for _ in range(LONG_AT_ONCE)]
    for _ in asking:
        await started.acquire()
    for _ in range(3):
        with pytest.raises(Overloaded):
            await neighbours._long(work)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    steps.set()
    while neighbours._n_long:
        await asyncio.sleep(0)
    assert ended == ["_Abandoned"] * LONG_AT_ONCE
    assert await neighbours._long(work) == "an answer"
