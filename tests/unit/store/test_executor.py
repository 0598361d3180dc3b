"""One writer thread behind an awaitable call: order, cancellation, errors, closing."""

import asyncio

import pytest

from serve_app import logs
from serve_app.errors import DatasetNotFound, InvalidRequest, JobRunning, ServiceError, StoreUnavailable
from serve_app.store.database import LAST_RETRY_S, Database
from serve_app.store.datasets import Datasets
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from serve_app.store.operations import Health
from serve_app.store.vectors import Vectors
from tests.invariants import check_invariants
from tests.unit.store.workbench import Clock, lay_blank, source_files


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def database(path, clock):
    """Its open transaction keeps the writer thread of `store` waiting."""
    lay_blank(path)
    return Database(path, clock=clock)


@pytest.fixture
async def store(path, database):
    store = StoreExecutor(database)
    yield store
    await store.drain_and_close()
    if path.is_file():
        check_invariants(path)


async def register(store, name="flowers", n=2):
    scan = await store.ask(Datasets.begin_scan)
    await store.ask(Datasets.put_scan, scan, 0, source_files(n))
    return await store.ask(Datasets.register, scan, name=name, root="/r", format="folder", annotations=None)


async def test_methods_of_every_part_are_called_by_reference(store):
    dataset = await register(store)
    job = await store.ask(Jobs.create, dataset.id, "embed", model_name="m", params={"a": 1})
    assert await store.ask(Jobs.get, job.id) == job
    assert (await store.ask(Vectors.status, dataset.id)).sample_count == 2
    assert await store.ask(Health.check) == []


async def test_methods_are_called_by_name(store):
    dataset = await register(store)
    assert await store.ask_named("Datasets.get", (dataset.id,), {}) == dataset
    page = await store.ask_named("Datasets.samples", [dataset.id], {"limit": 1, "cursor": None})
    assert page[1] == "1-0"


@pytest.mark.parametrize(
    "name",
    ["Jobs._is_free", "Jobs.__init__", "Jobs.nope", "Database.close", "object.__repr__", "", "Datasets", "os.system"],
)
async def test_only_public_methods_of_parts_can_be_called(store, name):
    with pytest.raises(InvalidRequest, match="no method"):
        await store.ask_named(name, (), {})


async def test_fifty_concurrent_creates_have_one_winner(store):
    dataset = await register(store)
    results = await asyncio.gather(
        *(store.ask(Jobs.create, dataset.id, "embed", model_name="m") for _ in range(50)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, JobRunning)]
    (won,) = [result for result in results if not isinstance(result, JobRunning)]
    assert {error.detail for error in refused} == {won.id}
    assert len(refused) == 49


async def test_an_error_reaches_its_caller_and_hurts_no_other_call(store):
    dataset = await register(store)
    with pytest.raises(DatasetNotFound):
        await store.ask(Jobs.create, "nope", "embed")
    with pytest.raises(ServiceError, match="log of the service"):
        await store.ask_named("Jobs.create", (dataset.id,), {"no_such_argument": 1})
    assert (await store.ask(Jobs.create, dataset.id, "embed")).status == "running"


async def test_a_database_that_cannot_be_opened_is_an_answer_and_not_the_end(store, path, clock):
    path.unlink()
    path.mkdir()
    for method in (Datasets.all, Health.check):
        with pytest.raises(StoreUnavailable, match="folder of that name"):
            await store.ask(method)
    path.rmdir()
    clock.now += LAST_RETRY_S
    assert await store.ask(Datasets.all) == []


async def test_a_waiting_write_is_done_although_its_caller_gave_up(store, database):
    dataset = await register(store)
    with database.transaction():
        waiting = [asyncio.create_task(store.ask(Jobs.cancel, dataset.id)) for _ in range(2)]
        waiting.append(asyncio.create_task(store.ask(Jobs.create, dataset.id, "embed")))
        await asyncio.sleep(0)
        waiting[-1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[-1]
    with pytest.raises(JobRunning):
        await store.ask(Jobs.create, dataset.id, "embed")
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_reads_do_not_wait_for_the_writer(store, database):
    dataset = await register(store)
    with database.transaction():
        write = asyncio.create_task(store.ask(Jobs.create, dataset.id, "embed"))
        assert await store.ask(Datasets.get, dataset.id) == dataset
        assert not write.done()
    await write


async def test_closing_lets_accepted_writes_finish_and_refuses_later_calls(store, database, path):
    dataset = await register(store)
    with database.transaction():
        accepted = asyncio.create_task(store.ask(Jobs.create, dataset.id, "embed"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.drain_and_close())
        await asyncio.sleep(0)
        for method in (Datasets.all, Datasets.begin_scan):
            with pytest.raises(StoreUnavailable, match="closing"):
                await store.ask(method)
    await closing
    assert (await accepted).status == "running"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_closing_twice_and_closing_unused_is_harmless(path):
    store = StoreExecutor(Database(path))
    await asyncio.gather(store.drain_and_close(), store.drain_and_close())
    await store.drain_and_close()
    assert not path.exists()


async def test_calls_from_an_event_loop_that_has_closed_leave_the_store_usable(path):
    store = StoreExecutor(Database(path))
    await asyncio.to_thread(lambda: asyncio.run(register(store, "from another loop")))
    assert (await store.ask(Datasets.by_name, "from another loop")).sample_count == 2
    await store.drain_and_close()


async def test_writes_that_took_effect_are_told_with_their_result(path):
    told = []
    store = StoreExecutor(Database(path), on_write=lambda name, seconds, result: told.append((name, result)))
    dataset = await register(store)
    job = await store.ask(Jobs.create, dataset.id, "embed", model_name="m")
    with pytest.raises(JobRunning):
        await store.ask(Jobs.create, dataset.id, "embed", model_name="m")
    await store.ask(Jobs.get, job.id)
    await store.drain_and_close()
    assert told[-2:] == [("Datasets.register", dataset), ("Jobs.create", job)]


async def test_store_methods_know_on_whose_behalf_they_run(store, monkeypatch):
    monkeypatch.setattr(store._methods["Health.check"].__self__._database, "check", lambda: [dict(logs.ids())])
    with logs.about(request_id="r1"):
        assert await store.ask(Health.check) == [{"request_id": "r1"}]
