import asyncio
import threading
from contextlib import aclosing

import pytest

from serve_app.jobs import read_ahead as module
from serve_app.jobs.read_ahead import read_ahead


async def test_parts_come_in_order():
    assert [part async for part in read_ahead(iter("abc"))] == ["a", "b", "c"]


async def test_the_next_part_is_read_while_one_is_used():
    """An import read a block only when the block before it was on disk."""
    is_read = threading.Event()

    def parts():
        yield 1
        is_read.set()
        yield 2

    async with aclosing(read_ahead(parts())) as found:
        assert await anext(found) == 1
        assert await asyncio.to_thread(is_read.wait, 30)


async def test_nothing_reads_any_more_once_it_is_closed():
    may_go_on, states = threading.Event(), []

    def parts():
        yield 1
        may_go_on.wait(30)
        states.append("read")
        yield 2

    async with aclosing(read_ahead(parts())) as found:
        await anext(found)
        asyncio.get_running_loop().call_later(0.01, may_go_on.set)
    assert states == ["read"]


async def test_an_error_of_the_source_is_raised_where_the_part_is_missing():
    def parts():
        yield 1
        raise OSError("gone")

    found = read_ahead(parts())
    assert await anext(found) == 1
    with pytest.raises(OSError, match="gone"):
        await anext(found)


async def test_a_source_that_hangs_does_not_hold_up_who_closes_it(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    answers = threading.Event()

    def parts():
        yield 1
        answers.wait(30)
        yield 2

    async with aclosing(read_ahead(parts())) as found:
        await anext(found)
    assert not answers.is_set()
    answers.set()
