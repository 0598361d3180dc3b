"""Rows that nobody reads any more go in small steps, between other writes, whatever ends the process meanwhile."""

import asyncio
import threading
from dataclasses import replace

import pytest

from serve_app.errors import StoreUnavailable
from serve_app.store import retired
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from serve_app.store.operations import Health
from tests.invariants import check_invariants, fingerprint
from tests.unit.store.workbench import CARD, Workbench, block_of, source_files

FILES = source_files(10)


def rows(bench, table="vectors_384"):
    with bench.database.read() as session:
        return session.value(f"SELECT count(*) FROM {table}")


def look(bench, dataset):
    with bench.database.read() as session:
        check_invariants(session)
        return fingerprint(session, dataset.id)


def test_an_old_set_goes_step_by_step_while_the_new_one_is_read(bench, monkeypatch):
    monkeypatch.setattr(retired, "STEP_ROWS", 4)
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.reduce(dataset)
    bench.embed(dataset, FILES, force=True)
    new = look(bench, dataset)
    left = [(rows(bench, "points"), rows(bench))]
    while bench.retired.step():
        assert look(bench, dataset) == new
        left.append((rows(bench, "points"), rows(bench)))
    assert left == [(10, 20), (6, 20), (2, 20), (0, 18), (0, 14), (0, 10), (0, 10)]
    assert not bench.database.path.with_name(bench.database.path.name + ".wal").exists()  # it was checkpointed


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_what_a_job_without_success_staged_goes_too(bench, how):
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    before = look(bench, dataset)
    claim = bench.start(dataset, force=True)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(FILES[:6]))
    if how == "cancelled":
        bench.jobs.cancel(dataset.id)
    else:
        bench.jobs.fail(claim.job.id, claim.attempt, "broken")
    assert (look(bench, dataset), rows(bench)) == (before, 16)
    bench.delete_retired()
    assert (look(bench, dataset), rows(bench)) == (before, 10)


def test_a_replaced_map_goes_and_the_new_one_stays(bench):
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.reduce(dataset)
    bench.reduce(dataset)
    now = look(bench, dataset)
    bench.delete_retired()
    assert (look(bench, dataset), rows(bench, "points")) == (now, 10)


def test_a_deleted_dataset_leaves_no_row_and_a_new_one_of_its_name_is_not_touched(bench, monkeypatch):
    monkeypatch.setattr(retired, "STEP_ROWS", 4)
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.reduce(dataset)
    bench.datasets.delete(dataset.id)
    again = bench.register(FILES[:3])
    bench.embed(again, FILES[:3])
    bench.delete_retired()
    assert [rows(bench, table) for table in ("samples", "vectors_384", "points", "retired")] == [3, 3, 0, 0]
    assert bench.vectors.status(again.id).embedding_count == 3


def test_retired_vectors_are_not_used_again(bench):
    dataset = bench.register(FILES)
    claim = bench.start(dataset)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(FILES))
    bench.jobs.cancel(dataset.id)
    _, read = bench.embed(dataset, FILES)
    assert [file.known_hashes for file in read] == [frozenset()] * 10


async def test_the_next_process_goes_on_where_one_broke_off(path, monkeypatch):
    monkeypatch.setattr(retired, "STEP_ROWS", 4)
    bench = Workbench(path)
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.embed(dataset, FILES, force=True)
    assert bench.retired.step()
    bench.database.close()
    bench = Workbench(path)
    assert (bench.database.check(), rows(bench)) == ([], 16)
    bench.database.close()
    store = StoreExecutor(Database(path))
    while await store.ask(Health.check) == [] and await in_file(store, "retired"):
        pass
    await store.drain_and_close()
    check_invariants(path)
    bench = Workbench(path)
    assert (rows(bench), rows(bench, "retired")) == (10, 0)
    bench.database.close()


async def in_file(store, table):
    with store._database.read() as session:
        return session.value(f"SELECT count(*) FROM {table}")


class Steps:
    """Deletions that take three steps; each waits until it may go on, and the first may fail."""

    def __init__(self, order, *, fails):
        self.order, self.fails = order, fails
        self.entered, self.go_on = threading.Event(), threading.Event()

    def step(self):
        self.order.append("step")
        self.entered.set()
        self.go_on.wait()
        if self.fails:
            self.fails = False
            raise StoreUnavailable("no room")
        return self.order.count("step") < 3


@pytest.mark.parametrize("fails", [False, True], ids=["", "first step fails"])
async def test_a_write_waits_for_one_step_and_not_for_all(path, fails):
    order = []
    store = StoreExecutor(Database(path), on_write=lambda name, seconds, result: order.append("write"))
    store._retired = steps = Steps(order, fails=fails)
    await store.ask(Health.check)
    await asyncio.to_thread(steps.entered.wait)
    second = asyncio.create_task(store.ask(Health.check))
    await asyncio.sleep(0)  # it is queued now
    steps.go_on.set()
    await second
    await store.drain_and_close()
    assert order[:4] == ["write", "step", "write", "step"]


def test_a_job_that_begins_anew_in_another_space_keeps_nothing_of_the_first(bench, monkeypatch):
    monkeypatch.setattr(retired, "STEP_ROWS", 4)
    dataset = bench.register(FILES)
    claim = bench.start(dataset)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(FILES[:9]))
    bench.jobs.begin(claim.job.id, claim.attempt, replace(CARD, space_key="space-z"))
    assert rows(bench) == 0
