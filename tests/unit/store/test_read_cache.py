"""Kept answers of small reads: as fresh as the database, and read once between two writes."""

from contextlib import suppress

import pytest

from serve_app.errors import ServiceError, StoreUnavailable
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from serve_app.store.read_cache import MAX_ANSWERS, ReadCache
from serve_app.store.vectors import Vectors
from tests.unit.store.test_executor import register


def fail():
    raise AssertionError("the kept answer was there")


def test_an_answer_is_kept_until_a_write_begins():
    cache = ReadCache()
    assert cache.get("a") is None
    assert cache.fill("a", lambda: 1) == cache.get("a") == 1
    with cache.write():
        assert cache.get("a") is None
    assert cache.get("a") is None


def test_what_is_read_while_a_write_is_under_way_is_not_kept():
    cache = ReadCache()
    with cache.write():
        assert cache.fill("a", lambda: "half") == "half"
    assert cache.get("a") is None


def test_what_was_read_before_a_write_is_not_kept_after_it():
    cache = ReadCache()

    def read_and_be_overtaken():
        with cache.write():
            pass
        return "before"

    assert cache.fill("a", read_and_be_overtaken) == "before"
    assert cache.get("a") is None


def test_a_failed_write_ends_too():
    cache = ReadCache()
    with suppress(ZeroDivisionError), cache.write():
        raise ZeroDivisionError
    cache.fill("a", lambda: 1)
    assert cache.get("a") == 1


def test_the_oldest_of_too_many_answers_is_forgotten():
    cache = ReadCache()
    for number in range(MAX_ANSWERS + 1):
        cache.fill(number, lambda number=number: number + 1)
    assert [cache.get(0), cache.get(1), cache.get(MAX_ANSWERS)] == [None, 2, MAX_ANSWERS + 1]


async def test_a_kept_answer_is_not_given_when_the_file_has_been_moved(path):
    store = StoreExecutor(Database(path))
    dataset = await register(store)
    first = await store.ask(Vectors.status, dataset.id)
    aside = path.rename(path.with_name("aside.duckdb"))
    with pytest.raises(StoreUnavailable, match="was moved, deleted or replaced"):
        await store.ask(Vectors.status, dataset.id)
    aside.rename(path)
    assert await store.ask(Vectors.status, dataset.id) == first
    await store.drain_and_close()


async def test_the_status_is_read_once_between_two_writes(path, monkeypatch):
    database = Database(path)
    store = StoreExecutor(database)
    dataset = await register(store, n=2)
    first = await store.ask(Vectors.status, dataset.id)
    with monkeypatch.context() as patched:
        patched.setattr(database, "read", fail)
        assert await store.ask(Vectors.status, dataset.id) == first
    await register(store, name="others", n=3)
    monkeypatch.setattr(database, "read", fail)
    with pytest.raises(ServiceError):
        await store.ask(Vectors.status, dataset.id)
    await store.drain_and_close()
