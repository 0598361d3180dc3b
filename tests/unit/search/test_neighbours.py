"""What of the vectors lies in files, and for how long."""

import asyncio
import threading

import numpy as np
import pytest

from serve_app.errors import DatasetNotFound, Overloaded, Unavailable
from serve_app.search.neighbours import LONG_AT_ONCE, Neighbours
from serve_app.search.set_file import ABOUT, MATRIX, ROWS, Draft, SetFile
from serve_app.search.set_files import PARTIAL, SetFiles
from serve_app.store.vectors import Vectors
from tests.unit.search.conftest import FILES
from tests.unit.store.workbench import source_files, vector_of


class CountingWriter:
    """A store that counts which datasets' vectors are read; `fault` is raised by the next read, `gate` holds it up."""

    def __init__(self, store):
        self._store = store
        self.read = []
        self.fault = None
        self.gate = {}

    async def ask(self, method, *args, **kwargs):
        if method is Vectors.rows and kwargs["after"] == -1:
            self.read += args
            if args[0] in self.gate:
                await self.gate[args[0]].wait()
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
        return await self._store.ask(method, *args, **kwargs)


@pytest.fixture
def writer(store):
    return CountingWriter(store)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sets"


@pytest.fixture
def other(bench):
    """One more dataset with vectors."""
    files = source_files(2, prefix="second")
    dataset = bench.register(files, name="second")
    bench.embed(dataset, files)
    return dataset


def kept(folder):
    """The sets of a folder, as dataset and version."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


async def test_however_many_ask_at_once_the_vectors_are_read_once(writer, folder, dataset):
    neighbours = Neighbours(writer, folder)
    await asyncio.gather(*(neighbours.similar(dataset.id, FILES[0].sample_id, 2) for _ in range(10)))
    await neighbours.outliers(dataset.id, 1, 1)
    assert writer.read == [dataset.id]


async def test_a_file_outlives_the_process_that_wrote_it(writer, folder, dataset):
    first = await Neighbours(writer, folder).similar(dataset.id, FILES[0].sample_id, 2)
    assert await Neighbours(writer, folder).similar(dataset.id, FILES[0].sample_id, 2) == first
    assert writer.read == [dataset.id]


async def test_a_set_holds_each_samples_direction_length_and_names_in_sample_order(writer, folder, bench, dataset):
    bench.embed(dataset, [FILES[2], FILES[0], FILES[1]], force=True)
    found = await SetFiles(folder, writer).current(dataset.id)
    vectors = np.stack([vector_of(file.sample_id) for file in FILES])
    assert found.rows.column("sample_id").to_pylist() == [file.sample_id for file in FILES]
    assert found.rows.column("file_name").to_pylist() == [file.file_name for file in FILES]
    assert found.rows.column("label").to_pylist() == [file.label for file in FILES]
    assert found.matrix * found.lengths[:, None] == pytest.approx(vectors, rel=1e-6, abs=1e-6)
    assert np.linalg.norm(found.matrix, axis=1) == pytest.approx(np.ones(3))


@pytest.mark.parametrize("n_rows", [1, 2])
async def test_a_set_is_the_same_however_small_its_pages_are(writer, folder, dataset, monkeypatch, n_rows):
    whole = await SetFiles(folder / "whole", writer).current(dataset.id)
    monkeypatch.setattr("serve_app.search.set_files.PAGE_BYTES", 4 * whole.matrix.shape[1] * n_rows)
    monkeypatch.setattr("serve_app.search.set_files.NAMES_PAGE_ROWS", n_rows)
    paged = await SetFiles(folder / "paged", writer).current(dataset.id)
    assert paged.rows.equals(whole.rows)
    assert np.array_equal(paged.matrix, whole.matrix)


async def test_vectors_are_read_again_when_they_have_changed_and_the_old_file_goes(writer, folder, bench, dataset):
    neighbours = Neighbours(writer, folder)
    await neighbours.diverse(dataset.id, 1)
    bench.embed(dataset, FILES, force=True)
    await neighbours.diverse(dataset.id, 1)
    bench.datasets.rescan(bench.scan(FILES[1:]), dataset.id)
    assert len(await neighbours.diverse(dataset.id, 3)) == 2
    assert writer.read == [dataset.id] * 3
    assert kept(folder) == [f"{dataset.id}/{bench.vectors.current(dataset.id).version}"]


async def test_a_dataset_all_of_whose_samples_are_gone_has_no_neighbours(writer, folder, bench, dataset):
    bench.datasets.rescan(bench.scan([]), dataset.id)
    neighbours = Neighbours(writer, folder)
    assert (await neighbours.duplicates(dataset.id, 0.5)).groups == []
    assert await neighbours.outliers(dataset.id, 3, 3) == []
    assert await neighbours.diverse(dataset.id, 3) == []


@pytest.mark.parametrize("name", [MATRIX, ROWS, ABOUT])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
async def test_a_damaged_file_is_written_again(writer, folder, dataset, name, damage):
    before = await Neighbours(writer, folder).similar(dataset.id, FILES[0].sample_id, 2)
    [file] = folder.glob(f"*/*/{name}")
    content = bytearray(file.read_bytes())
    file.unlink()  # another file, so that what is mapped stays as it is
    if damage == "cut":
        file.write_bytes(content[:-20])
    elif damage == "changed":
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    assert await Neighbours(writer, folder).similar(dataset.id, FILES[0].sample_id, 2) == before
    assert writer.read == [dataset.id] * 2


async def test_a_read_that_failed_is_tried_again_at_the_next_question_and_leaves_no_file(writer, folder, dataset):
    neighbours = Neighbours(writer, folder)
    writer.fault = Unavailable("the writer went away")
    with pytest.raises(Unavailable, match="went away"):
        await neighbours.diverse(dataset.id, 1)
    assert kept(folder) == []
    assert len(await neighbours.diverse(dataset.id, 1)) == 1


async def test_a_full_disk_is_said_and_leaves_no_file(writer, folder, dataset, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serve_app.search.set_file.allocate", full)
    with pytest.raises(Unavailable, match="No space left"):
        await Neighbours(writer, folder).diverse(dataset.id, 1)
    assert kept(folder) == []


async def test_a_set_that_changes_while_it_is_read_is_read_again(writer, folder, bench, dataset):
    writer.gate[dataset.id] = asyncio.Event()
    asked = asyncio.create_task(Neighbours(writer, folder).diverse(dataset.id, 9))
    while not writer.read:
        await asyncio.sleep(0)
    await asyncio.to_thread(bench.embed, dataset, FILES, force=True)
    writer.gate.pop(dataset.id).set()
    assert len(await asked) == len(FILES)
    assert writer.read == [dataset.id] * 2
    assert kept(folder) == [f"{dataset.id}/{bench.vectors.current(dataset.id).version}"]


async def test_one_dataset_is_answered_while_another_is_read(writer, folder, dataset, other):
    neighbours = Neighbours(writer, folder)
    writer.gate[dataset.id] = asyncio.Event()
    waiting = asyncio.create_task(neighbours.diverse(dataset.id, 1))
    while not writer.read:
        await asyncio.sleep(0)
    assert len(await neighbours.diverse(other.id, 2)) == 2
    assert not waiting.done()
    writer.gate[dataset.id].set()
    assert len(await waiting) == 1


async def test_the_file_of_a_deleted_dataset_goes(writer, folder, bench, dataset, other):
    neighbours = Neighbours(writer, folder)
    for asked in (dataset, other):
        await neighbours.diverse(asked.id, 1)
    bench.datasets.delete(dataset.id)
    with pytest.raises(DatasetNotFound):
        await neighbours.diverse(dataset.id, 1)
    assert [name.partition("/")[0] for name in kept(folder)] == [other.id]


async def test_a_forgotten_dataset_has_no_file(writer, folder, bench, dataset, other):
    neighbours = Neighbours(writer, folder)
    for asked in (dataset, other):
        await neighbours.diverse(asked.id, 1)
    bench.datasets.delete(dataset.id)
    await neighbours.forget(dataset.id)
    await neighbours.forget("never asked about")
    assert [name.partition("/")[0] for name in kept(folder)] == [other.id]


@pytest.mark.parametrize("hostile", ["..", ".", "", "../sets", "/"])
async def test_an_id_that_is_a_path_removes_nothing(writer, folder, dataset, hostile):
    neighbours = Neighbours(writer, folder)
    await neighbours.diverse(dataset.id, 1)
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(DatasetNotFound):
        await neighbours.diverse(hostile, 1)
    assert sorted(folder.parent.rglob("*")) == before


async def test_what_nobody_asks_for_any_more_goes_when_the_next_file_is_written(writer, folder, bench, dataset, other):
    neighbours = Neighbours(writer, folder)
    await neighbours.diverse(dataset.id, 1)
    bench.datasets.delete(dataset.id)
    await neighbours.diverse(other.id, 1)
    assert [name.partition("/")[0] for name in kept(folder)] == [other.id]


async def test_a_draft_goes_when_its_process_has_died_and_not_before(writer, folder, bench, dataset):
    described = bench.vectors.current(dataset.id)
    dead, alive = (folder / dataset.id / f"{described.version}.{name}{PARTIAL}" for name in ("dead", "alive"))
    Draft(dead, described)._file.close()  # as the kernel does at the end of a process
    draft = Draft(alive, described)
    await Neighbours(writer, folder).diverse(dataset.id, 1)
    assert alive.exists()
    assert not dead.exists()
    draft.close()
    assert kept(folder) == [f"{dataset.id}/{described.version}"]


async def test_of_two_processes_that_write_one_set_both_are_answered(writer, folder, dataset):
    first, second = Neighbours(writer, folder), Neighbours(writer, folder)
    answers = await asyncio.gather(first.diverse(dataset.id, 3), second.diverse(dataset.id, 3))
    assert answers[0] == answers[1]
    [version] = (folder / dataset.id).iterdir()
    assert SetFile.open(version) is not None


async def test_a_long_question_ends_with_its_caller_and_only_few_run_at_once(folder):
    """A caller that stops waiting left its thread behind, and each retry added one."""
    neighbours = Neighbours(None, folder)
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
