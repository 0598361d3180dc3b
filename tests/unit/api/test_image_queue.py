"""How many images are read at once, and what happens to those whose caller has gone."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from starlette.exceptions import HTTPException

from serve_app.api.image_queue import ImageQueue
from serve_app.errors import Overloaded


class Caller:
    """A request whose client may go."""

    def __init__(self):
        self.has_gone = asyncio.Event()

    async def receive(self):
        await self.has_gone.wait()
        return {"type": "http.disconnect"}


@asynccontextmanager
async def visit_of(queue, caller=None):
    visits = queue.entered(caller or Caller())
    yield await anext(visits)
    with pytest.raises(StopAsyncIteration):
        await anext(visits)


class Gate:
    """Work that says when it has begun, and waits until it may end."""

    def __init__(self):
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def pass_through(self):
        self.has_begun.set()
        assert self.may_end.wait(60)


async def test_no_more_images_are_read_at_once_than_there_are_threads():
    at_once, most, lock, together = 0, 0, threading.Lock(), threading.Barrier(3)

    def work():
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait(60)
        with lock:
            at_once -= 1

    queue = ImageQueue("test", at_once=3)
    async with visit_of(queue) as visit:
        await asyncio.gather(*(visit.run(work) for _ in range(30)))
    assert most == 3


async def test_a_caller_that_goes_while_it_waits_leaves_the_queue():
    queue, gate, read = ImageQueue("test", at_once=1), Gate(), []
    async with visit_of(queue) as first, visit_of(queue, leaver := Caller()) as second:
        running = asyncio.create_task(first.run(gate.pass_through))
        await asyncio.to_thread(gate.has_begun.wait, 60)
        waiting = asyncio.create_task(second.run(read.append, "the leaver's"))
        leaver.has_gone.set()
        with pytest.raises(HTTPException):
            await waiting
        gate.may_end.set()
        await running
        await first.run(read.append, "another")
    assert read == ["another"]


@pytest.mark.parametrize("way", ["gone", "cancelled"])
async def test_work_that_outlives_its_caller_keeps_its_place(way):
    queue, gate, read = ImageQueue("test", at_once=1), Gate(), []
    async with visit_of(queue, leaver := Caller()) as first, visit_of(queue) as second:
        running = asyncio.create_task(first.run(gate.pass_through))
        await asyncio.to_thread(gate.has_begun.wait, 60)
        leaver.has_gone.set() if way == "gone" else running.cancel()
        with pytest.raises((HTTPException, asyncio.CancelledError)):
            await running
        waiting = asyncio.create_task(second.run(read.append, "next"))
        await asyncio.to_thread(lambda: None)  # a turn of the loop and of another thread
        assert read == []
        gate.may_end.set()
        await waiting
    assert read == ["next"]


async def test_answers_hold_no_more_bytes_than_they_may_until_they_are_sent():
    queue = ImageQueue("test", max_held_bytes=10)
    async with visit_of(queue) as first, visit_of(queue) as second:
        assert first.hold(b"123456") == b"123456"
        with pytest.raises(Overloaded):
            second.hold(b"12345")
        second.hold(b"1234")
    async with visit_of(queue) as third:
        third.hold(b"1234567890")


async def test_work_without_enough_memory_is_refused_and_not_an_internal_error():
    def work():
        raise MemoryError

    async with visit_of(ImageQueue("test")) as visit:
        with pytest.raises(Overloaded, match="short of memory"):
            await visit.run(work)
