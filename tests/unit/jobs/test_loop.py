"""The job loop against the real store, with an embedder whose vector is a function of the file's bytes."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serve_app.config import Settings
from serve_app.errors import (
    Conflict,
    ModelUnavailable,
    NoEmbeddings,
    RefusedImage,
    ServiceError,
    StaleAttempt,
    StoreUnavailable,
    Unavailable,
    WorkerCrashed,
)
from serve_app.jobs import loop
from serve_app.jobs.listing import Lister
from serve_app.jobs.loop import JobLoop
from serve_app.records import Block, Claim, Job, ModelCard, Skip, SourceFile
from serve_app.search.neighbours import Neighbours
from serve_app.sources import scan
from serve_app.sources.files import read_file
from serve_app.sources.reading import Reader
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from serve_app.store.listings import Listings
from serve_app.store.vectors import Vectors
from tests.unit.store.workbench import lay_blank
from tests.whole_set import read

DIMENSION = 8
SETTINGS = Settings(dataset_roots=(Path("/"),))


def vector_of(data: bytes) -> np.ndarray:
    """Eight numbers in [1, 2) that only these bytes have."""
    return 1 + np.frombuffer(hashlib.sha256(data).digest()[: 2 * DIMENSION], np.uint16).astype(np.float32) / 65536


class FakeEmbedder:
    """Reads the files and answers their `vector_of`; `before` may raise for a call."""

    def __init__(self, before: Callable[[list[SourceFile]], None] = lambda tasks: None, space: str = "space") -> None:
        self.before = before
        self.calls: list[list[str]] = []
        self.card = ModelCard("fake", DIMENSION, space, "cpu", "fp32")

    async def describe(self, model: str) -> ModelCard:
        return self.card

    async def embed_files(self, model: str, root: str, tasks: list[SourceFile]) -> Block:
        await asyncio.sleep(0)
        self.calls.append([task.sample_id for task in tasks])
        self.before(tasks)
        ids, rows, stamps, known, skips = [], [], [], [], []
        for task in tasks:
            if task.file_name.startswith("bad"):
                skips.append(Skip(task.sample_id, task.file_name, "corrupt", "cannot be decoded"))
                continue
            try:
                data, stamp = read_file(root, task.file_name, max_bytes=1 << 20)
            except RefusedImage as error:
                skips.append(Skip.of(error, task.sample_id, task.file_name))
                continue
            if stamp.content_hash in task.known_hashes:
                known.append((task.sample_id, stamp))
            else:
                ids.append(task.sample_id)
                rows.append(vector_of(data))
                stamps.append(stamp)
        vectors = np.stack(rows) if rows else np.empty((0, DIMENSION), np.float32)
        return Block(ids, vectors, stamps, known, skips, self.card.space_key)

    @property
    def embedded(self) -> list[str]:
        return sorted(i for call in self.calls for i in call)


class FakeProjector:
    async def warm(self) -> None:
        pass

    async def reduce(self, claim: Claim) -> None:
        raise Unavailable("no reducer here")

    async def graph(self, claim: Claim) -> None:
        raise Unavailable("no reducer here")


class FakeSearcher:
    """Takes note of the datasets whose vectors it is to read."""

    def __init__(self) -> None:
        self.prepared: asyncio.Queue[str] = asyncio.Queue()

    async def ask(self, question: object, dataset_id: str) -> None:
        assert question is Neighbours.prepare
        self.prepared.put_nowait(dataset_id)
        raise NoEmbeddings("the loop expects this")


class World:
    """A store, a folder of files and a loop to run."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "images"
        self.root.mkdir()
        path = tmp_path / "data" / "constellate.duckdb"
        lay_blank(path)
        self.store = StoreExecutor(Database(path))
        self.searcher = FakeSearcher()

    def write(self, *names: str) -> None:
        for name in names:
            (self.root / name).write_bytes(f"bytes of {name}".encode())

    async def register(self) -> str:
        scan_id = await self.store.ask(Datasets.begin_scan)
        for page, files in enumerate(scan(self.root, "folder", None)):
            await self.store.ask(Datasets.put_scan, scan_id, page, files)
        dataset = await self.store.ask(
            Datasets.register, scan_id, name="images", root=str(self.root), format="folder", annotations=None
        )
        return dataset.id

    async def generate(self, dataset_id: str, **fields: bool) -> Job:
        return await self.store.ask(Jobs.create, dataset_id, "embed", model_name="fake", **fields)

    def loop(self, embedder: FakeEmbedder, *, writer: object = None, projector: object = None) -> JobLoop:
        return JobLoop(
            writer or self.store,
            embedder,
            projector or FakeProjector(),
            reader=Reader(SETTINGS),
            lister=Lister(SETTINGS),
            searcher=self.searcher,
            window=4,
            chunk_images=4,
        )

    async def run_to_end(
        self, embedder: FakeEmbedder, job: Job, *, writer: object = None, projector: object = None
    ) -> Job:
        running = asyncio.create_task(self.loop(embedder, writer=writer, projector=projector).run())
        try:
            return await self.ended(job)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def ended(self, job: Job) -> Job:
        async with asyncio.timeout(60):
            while (found := await self.store.ask(Jobs.get, job.id)).status == "running":
                await asyncio.sleep(0.005)
        return found

    async def vectors(self, dataset_id: str) -> dict[str, np.ndarray]:
        found = await read(self.store, dataset_id)
        return dict(zip(found.sample_ids, found.vectors, strict=True))


@pytest.fixture
async def world(tmp_path: Path):
    world = World(tmp_path)
    yield world
    await world.store.drain_and_close()


NAMES = tuple(f"{i:02d}.jpg" for i in range(30))


async def test_a_job_stores_the_vector_of_every_file(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    embedder = FakeEmbedder()
    job = await world.run_to_end(embedder, await world.generate(dataset_id))
    assert (job.status, job.processed, job.total) == ("complete", 30, 30)
    vectors = await world.vectors(dataset_id)
    assert sorted(vectors) == sorted(NAMES)
    for name, vector in vectors.items():
        assert np.array_equal(vector, vector_of(f"bytes of {name}".encode()))
    assert embedder.embedded == sorted(NAMES)


async def test_an_unchanged_folder_is_not_read_again(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    again = FakeEmbedder()
    job = await world.run_to_end(again, await world.generate(dataset_id))
    assert (job.status, job.processed, job.reused) == ("complete", 30, 30)
    assert again.calls == []


async def test_a_file_changed_without_a_rescan_is_embedded_again(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    (world.root / "07.jpg").write_bytes(b"other bytes, other size")
    again = FakeEmbedder()
    job = await world.run_to_end(again, await world.generate(dataset_id))
    assert (job.reused, again.embedded) == (29, ["07.jpg"])
    vectors = await world.vectors(dataset_id)
    assert np.array_equal(vectors["07.jpg"], vector_of(b"other bytes, other size"))


async def test_vectors_of_another_space_are_not_reused(world: World):
    world.write("a.jpg", "b.jpg")
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(space="fp32"), await world.generate(dataset_id))
    other = FakeEmbedder(space="int8")
    job = await world.run_to_end(other, await world.generate(dataset_id))
    assert (job.reused, other.embedded) == (0, ["a.jpg", "b.jpg"])


async def test_an_image_that_kills_its_replica_is_skipped_and_named(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()

    def die_on_13(tasks: list[SourceFile]) -> None:
        if any(task.sample_id == "13.jpg" for task in tasks):
            raise WorkerCrashed("replica died")

    job = await world.run_to_end(FakeEmbedder(die_on_13), await world.generate(dataset_id))
    assert (job.status, job.processed, job.skipped) == ("complete", 30, 1)
    skips, _ = await world.store.ask(Jobs.skipped, dataset_id, limit=10, cursor=None)
    assert [(skip.sample_id, skip.reason) for skip in skips] == [("13.jpg", "crashed_worker")]


async def test_a_replica_that_is_away_for_a_while_costs_only_time(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    away = iter([True] * 3)

    def away_three_times(tasks: list[SourceFile]) -> None:
        if next(away, False):
            raise Unavailable("no replica yet")

    job = await world.run_to_end(FakeEmbedder(away_three_times), await world.generate(dataset_id))
    assert (job.status, job.processed, job.skipped) == ("complete", 30, 0)


async def test_a_missing_model_fails_the_job_with_its_reason(world: World):
    world.write("a.jpg")
    dataset_id = await world.register()

    class NoModel(FakeEmbedder):
        async def describe(self, model: str) -> ModelCard:
            raise ModelUnavailable("weights are nowhere")

    job = await world.run_to_end(NoModel(), await world.generate(dataset_id))
    assert job.status == "error"
    assert "weights are nowhere" in job.message


async def test_a_loop_that_is_stopped_gives_its_job_back_and_the_next_one_goes_on(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    job = await world.generate(dataset_id)
    staged_some = asyncio.Event()

    class Stalls(FakeEmbedder):
        async def embed_files(self, model: str, root: str, tasks: list[SourceFile]) -> Block:
            if len(self.calls) >= 3:
                staged_some.set()
                await asyncio.Event().wait()
            return await super().embed_files(model, root, tasks)

    first = Stalls()
    running = asyncio.create_task(world.loop(first).run())
    await staged_some.wait()
    while (await world.store.ask(Jobs.get, job.id)).processed < 12:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    second = FakeEmbedder()
    ended = await world.run_to_end(second, job)
    assert (ended.status, ended.processed, ended.attempt) == ("complete", 30, 2)
    assert sorted(first.embedded + second.embedded) == sorted(NAMES)


async def test_cancelling_stops_the_loop_and_keeps_the_old_vectors(world: World, monkeypatch):
    monkeypatch.setattr(loop, "RENEW_S", 0.01)
    world.write(*NAMES)
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    before = await world.vectors(dataset_id)

    entered, left = asyncio.Event(), asyncio.Event()

    class Hangs(FakeEmbedder):
        async def embed_files(self, model: str, root: str, tasks: list[SourceFile]) -> Block:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                left.set()
            raise AssertionError

    running = asyncio.create_task(world.loop(Hangs()).run())
    job = await world.generate(dataset_id, force=True)
    await entered.wait()
    await world.store.ask(Jobs.cancel, dataset_id)
    async with asyncio.timeout(60):
        await left.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await world.store.ask(Jobs.get, job.id)).status == "cancelled"
    after = await world.vectors(dataset_id)
    assert all(np.array_equal(before[name], after[name]) for name in NAMES)


async def test_slots_of_the_window_come_back_after_a_cancelled_job(world: World, monkeypatch):
    """A task cancelled before its first step never ran its own `finally`, and the window shrank for good."""
    monkeypatch.setattr(loop, "RENEW_S", 0.01)
    world.write(*NAMES)
    dataset_id = await world.register()

    class HangsAtFirst(FakeEmbedder):
        hang = True

        async def embed_files(self, model: str, root: str, tasks: list[SourceFile]) -> Block:
            if self.hang:
                await asyncio.Event().wait()
            return await super().embed_files(model, root, tasks)

    embedder = HangsAtFirst()
    running = asyncio.create_task(world.loop(embedder).run())
    for _ in range(3):
        await world.generate(dataset_id)
        await asyncio.sleep(0.05)
        await world.store.ask(Jobs.cancel, dataset_id)
    embedder.hang = False
    job = await world.ended(await world.generate(dataset_id))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (job.status, job.processed) == ("complete", 30)


class DoubtfulWriter:
    """Loses the answer of every other write: the call took effect and the caller is told that it may not have."""

    def __init__(self, store: StoreExecutor) -> None:
        self._store = store
        self._n = 0

    async def ask(self, method, *args, **kwargs):
        answer = await self._store.ask(method, *args, **kwargs)
        self._n += 1
        if getattr(method, "is_write", False) and method is not Jobs.claim and self._n % 2:
            raise StoreUnavailable("the writer died after the commit")
        return answer


async def test_lost_answers_of_the_writer_leave_each_sample_exactly_once(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    job = await world.generate(dataset_id)
    ended = await world.run_to_end(FakeEmbedder(), job, writer=DoubtfulWriter(world.store))
    assert (ended.status, ended.processed, ended.total) == ("complete", 30, 30)
    assert sorted(await world.vectors(dataset_id)) == sorted(NAMES)


async def test_two_loops_at_once_end_the_job_once(world: World):
    world.write(*NAMES)
    dataset_id = await world.register()
    job = await world.generate(dataset_id)
    loops = [asyncio.create_task(world.loop(FakeEmbedder()).run()) for _ in range(2)]
    ended = await world.ended(job)
    for running in loops:
        running.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert (ended.status, ended.processed) == ("complete", 30)
    with pytest.raises(StaleAttempt):
        await world.store.ask(Jobs.announce, job.id, 1, phase="running", message="late")


async def test_bad_images_are_skipped_and_a_job_of_only_bad_ones_fails(world: World):
    world.write("a.jpg", "bad1.jpg", "bad2.jpg")
    dataset_id = await world.register()
    job = await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    assert (job.status, job.processed, job.skipped) == ("complete", 3, 2)

    class FindsAllBad(FakeEmbedder):
        async def embed_files(self, model: str, root: str, tasks: list[SourceFile]) -> Block:
            skips = [Skip(task.sample_id, task.file_name, "corrupt", "cannot be decoded") for task in tasks]
            return Block([], np.empty((0, DIMENSION), np.float32), [], skips=skips)

    job = await world.run_to_end(FindsAllBad(), await world.generate(dataset_id, force=True))
    assert job.status == "error"
    assert "no_valid_images" in job.message
    assert sorted(await world.vectors(dataset_id)) == ["a.jpg"]


async def test_a_folder_that_goes_away_late_in_a_job_fails_it_though_most_files_were_read(world: World):
    world.write(*(f"{i:02}.jpg" for i in range(20)))
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    before = await world.vectors(dataset_id)

    n_files = 0

    def vanish_after_16(tasks: list[SourceFile]) -> None:
        nonlocal n_files
        if n_files >= 16 and world.root.exists():
            world.root.rename(world.root.with_name("away"))
        n_files += len(tasks)

    job = await world.run_to_end(FakeEmbedder(vanish_after_16), await world.generate(dataset_id, force=True))
    assert job.status == "error"
    assert job.message.startswith("root_unavailable: ")
    assert {i: v.tobytes() for i, v in (await world.vectors(dataset_id)).items()} == {
        i: v.tobytes() for i, v in before.items()
    }


async def test_files_deleted_one_by_one_are_skipped_while_others_remain(world: World):
    world.write(*(f"{i:02}.jpg" for i in range(20)))
    dataset_id = await world.register()

    def delete_the_last_five(_: list[SourceFile]) -> None:
        for i in range(15, 20):
            (world.root / f"{i:02}.jpg").unlink(missing_ok=True)

    job = await world.run_to_end(FakeEmbedder(delete_the_last_five), await world.generate(dataset_id))
    assert (job.status, job.processed, job.skipped) == ("complete", 20, 5)


class MortalProjector(FakeProjector):
    """Places every vector at the origin, after its process died (or another error came) so many times."""

    def __init__(self, world: World, n_deaths: int, error: type[ServiceError] = WorkerCrashed) -> None:
        self._store = world.store
        self._n_deaths = n_deaths
        self._error = error

    async def reduce(self, claim: Claim) -> None:
        if self._n_deaths:
            self._n_deaths -= 1
            raise self._error("the reducer went away")
        found = await self._store.ask(Vectors.current, claim.dataset.id)
        points = np.zeros((found.count, 2))
        await self._store.ask(Vectors.put_points, claim.job.id, claim.attempt, found.job_id, points)


@pytest.mark.parametrize(("n_deaths", "status"), [(1, "complete"), (2, "complete"), (3, "error")])
async def test_a_map_survives_the_death_of_its_process_but_is_not_tried_for_ever(
    world: World, n_deaths: int, status: str
):
    world.write("a.jpg", "b.jpg")
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    job = await world.store.ask(Jobs.create, dataset_id, "reduce", params={})
    ended = await world.run_to_end(FakeEmbedder(), job, projector=MortalProjector(world, n_deaths))
    assert ended.status == status
    if status == "error":
        assert ended.message.startswith("worker_crashed: ")


class MortalGraph(FakeProjector):
    """Ends graph jobs, after its process died so many times."""

    def __init__(self, world: World, n_deaths: int) -> None:
        self._store = world.store
        self._n_deaths = n_deaths

    async def graph(self, claim: Claim) -> None:
        if self._n_deaths:
            self._n_deaths -= 1
            raise WorkerCrashed("the reducer went away")
        await self._store.ask(Jobs.complete, claim.job.id, claim.attempt, "done")


@pytest.mark.parametrize(("n_deaths", "status"), [(2, "complete"), (3, "error")])
async def test_a_graph_survives_the_death_of_its_process_but_is_not_tried_for_ever(
    world: World, n_deaths: int, status: str
):
    world.write("a.jpg", "b.jpg")
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    job = await world.store.ask(Jobs.create, dataset_id, "graph", params={"k": 15})
    ended = await world.run_to_end(FakeEmbedder(), job, projector=MortalGraph(world, n_deaths))
    assert (ended.status, ended.total) == (status, 2)


async def test_a_map_whose_vectors_are_replaced_before_its_fit_begins_is_laid_out_from_the_new_ones(world: World):
    world.write("a.jpg", "b.jpg")
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    job = await world.store.ask(Jobs.create, dataset_id, "reduce", params={})
    ended = await world.run_to_end(FakeEmbedder(), job, projector=MortalProjector(world, 2, Conflict))
    assert ended.status == "complete"


@pytest.mark.parametrize(("n_wrong", "status"), [(2, "complete"), (1000, "error")])
async def test_vectors_of_another_space_never_come_into_a_set(world: World, n_wrong: int, status: str):
    """A replica restarts with other weights in the middle of a job, for good or for a while."""
    world.write(*NAMES)
    dataset_id = await world.register()
    await world.run_to_end(FakeEmbedder(), await world.generate(dataset_id))
    before = await world.vectors(dataset_id)

    class Restarts(FakeEmbedder):
        async def embed_files(self, model: str, root: str, tasks: list[SourceFile]) -> Block:
            block = await super().embed_files(model, root, tasks)
            if 3 <= len(self.calls) < 3 + n_wrong:
                return replace(block, vectors=block.vectors + 1, space_key="another space")
            return block

    job = await world.run_to_end(Restarts(), await world.generate(dataset_id, force=True))
    assert job.status == status
    if status == "error":
        assert job.message.startswith("model_replaced: the weights or the precision of fake changed")
    after = await world.vectors(dataset_id)
    assert all(np.array_equal(before[name], after[name]) for name in NAMES)


async def register_later(world: World, format: str = "auto") -> Job:
    return await world.store.ask(Listings.create, name="images", root=str(world.root), format=format, annotations=None)


async def test_a_registration_goes_on_after_its_loop_and_leaves_one_dataset(world: World, monkeypatch):
    monkeypatch.setattr("serve_app.jobs.listing.PAGE_FILES", 10)
    world.write(*NAMES)
    job = await register_later(world)
    has_put = asyncio.Event()

    class Stalls:
        async def ask(self, method: Callable, *args: object, **kwargs: object) -> object:
            answer = await world.store.ask(method, *args, **kwargs)
            if method is Listings.put:
                has_put.set()
                await asyncio.Event().wait()
            return answer

    running = asyncio.create_task(world.loop(FakeEmbedder(), writer=Stalls()).run())
    await has_put.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await world.store.ask(Jobs.release, job.id, 1)
    assert await world.store.ask(Datasets.all) == []

    ended = await world.run_to_end(FakeEmbedder(), job)
    assert (ended.status, ended.processed, ended.attempt) == ("complete", 30, 2)
    [dataset] = await world.store.ask(Datasets.all)
    assert (dataset.id, dataset.sample_count) == (job.dataset_id, 30)


async def test_a_registration_that_cannot_list_ends_with_the_code_and_the_reason(world: World):
    world.write(*NAMES)
    ended = await world.run_to_end(FakeEmbedder(), await register_later(world, "coco"))
    assert ended.status == "error"
    assert ended.message.startswith("invalid_request: no coco file in the folder")
    assert await world.store.ask(Datasets.all) == []


async def test_a_cancelled_registration_stops_listing(world: World, monkeypatch):
    monkeypatch.setattr("serve_app.jobs.listing.PAGE_FILES", 1)
    monkeypatch.setattr(loop, "RENEW_S", 0.01)
    world.write(*NAMES)
    job = await register_later(world)
    pages = 0

    class CancelsAtTheThird:
        async def ask(self, method: Callable, *args: object, **kwargs: object) -> object:
            nonlocal pages
            pages += method is Listings.put
            if pages == 3:
                await world.store.ask(Jobs.cancel, job.dataset_id)
            return await world.store.ask(method, *args, **kwargs)

    ended = await world.run_to_end(FakeEmbedder(), job, writer=CancelsAtTheThird())
    assert (ended.status, ended.message, pages) == ("cancelled", "Cancelled at 2 files", 3)
    assert await world.store.ask(Datasets.all) == []


async def test_new_vectors_are_read_for_the_first_search_when_their_job_has_ended(world):
    world.write("a.png")
    dataset_id = await world.register()
    job = await world.generate(dataset_id)
    loop = world.loop(FakeEmbedder())
    running = asyncio.create_task(loop.run())
    assert await asyncio.wait_for(world.searcher.prepared.get(), 60) == dataset_id
    assert (await world.store.ask(Jobs.get, job.id)).status == "complete"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
