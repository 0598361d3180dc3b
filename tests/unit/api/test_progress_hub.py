import asyncio
import json
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import httpx
import pytest
from httpx_sse import EventSource

from serve_app.api import progress_hub
from serve_app.api.progress_hub import (
    PING,
    RETRY_MS,
    ProgressHub,
    Watch,
    has_seen_end,
    progress_event,
    progress_events,
    state_of,
)
from serve_app.errors import JobNotFound, Overloaded, StoreUnavailable
from serve_app.records import Job
from serve_app.store.jobs import Jobs

JOB = Job(
    id="j1",
    dataset_id="d1",
    kind="embed",
    status="running",
    phase="running",
    processed=3,
    skipped=1,
    reused=0,
    total=10,
    message="Embedding 3 of 10",
    model_name="dinov2-base",
    attempt=1,
    seq=4,
    rate=2.5,
    eta_s=2.8,
    created_at=datetime(2026, 1, 1),
    finished_at=None,
)
ENDED = object()
PATIENCE_S = 60
DONE = replace(JOB, status="complete", processed=10, seq=9)


class Table:
    """A job table that a test writes to, and the services that read it; counts its reads."""

    def __init__(self, *jobs):
        self.jobs = {job.id: job for job in jobs}
        self.n_polls = 0
        self.fault = None
        self.polled = asyncio.Event()
        self.writer = self
        self.n_streams = []

    def find(self):
        return SimpleNamespace(writer=self, on_streams=self.n_streams.append)

    async def ask(self, method, *args):
        if self.fault is not None:
            self.n_polls += 1
            self.polled.set()
            raise self.fault
        if method is Jobs.get:
            if args[0] not in self.jobs:
                raise JobNotFound("no such job")
            return self.jobs[args[0]]
        assert method is Jobs.latest
        self.n_polls += 1
        self.polled.set()
        newest = {(job.dataset_id, job.kind): job for job in self.jobs.values()}
        return [newest.get(key) for key in args[0]]

    def put(self, job):
        self.jobs[job.id] = job


def hub_of(table, **kwargs):
    return ProgressHub(table.find, **{"poll_interval_s": 0.001, **kwargs})


async def next_state(watch):
    """The state of the watch when it has changed; None, as for a dataset without a job, or `ENDED`."""
    return watch.job if await asyncio.wait_for(watch.changed(), PATIENCE_S) else ENDED


async def test_a_stream_gives_the_present_state_then_each_newer_one_and_ends_with_the_terminal_one():
    table = Table(JOB)
    stream = progress_events(hub_of(table).watch("d1", "embed"))
    assert await anext(stream) == progress_event(JOB, retry_ms=RETRY_MS)
    table.put(DONE)
    assert [event async for event in stream] == [progress_event(DONE)]


async def test_the_end_is_told_even_when_it_comes_while_another_state_is_being_sent():
    table = Table(JOB)
    stream = progress_events(hub_of(table).watch("d1", "embed"))
    await anext(stream)
    for processed in (5, 10):
        table.put(
            replace(DONE, status="complete" if processed == 10 else "running", processed=processed, seq=processed)
        )
        table.polled.clear()
        await table.polled.wait()
    assert [event async for event in stream][-1] == progress_event(table.jobs["j1"])


async def test_only_an_idle_stream_is_pinged(monkeypatch):
    monkeypatch.setattr(progress_hub, "PING_S", 0.05)
    table = Table(JOB)
    stream = progress_events(hub_of(table).watch("d1", "embed"))
    while await anext(stream) == PING:  # before the first state, where the first look at the table comes late
        pass
    assert await anext(stream) == PING
    table.put(DONE)
    assert [event async for event in stream if event != PING] == [progress_event(DONE)]


def test_a_state_is_encoded_once_however_many_streams_it_goes_to():
    job = replace(JOB, seq=77)
    assert progress_event(job) is progress_event(replace(job))


async def test_a_client_that_does_not_read_misses_states_but_never_the_newest():
    table = Table(JOB)
    watch = hub_of(table).watch("d1", "embed")
    await next_state(watch)
    for processed in range(4, 10):
        watch.offer(replace(JOB, processed=processed, seq=processed + 1))
    assert (await next_state(watch)).processed == 9


async def test_the_number_of_open_streams_is_told_and_told_again_when_there_are_none():
    table = Table(JOB)
    hub = hub_of(table)
    first, second = hub.watch("d1", "embed"), hub.watch("d1", "embed")
    await asyncio.wait_for(table.polled.wait(), PATIENCE_S)
    first.close()
    second.close()
    await asyncio.wait_for(hub._task, PATIENCE_S)
    assert table.n_streams[0] == 2
    assert table.n_streams[-1] == 0


async def test_a_state_already_told_is_not_told_again():
    watch = Watch("d1", "embed", lambda watch: None)
    watch.offer(JOB)
    assert await next_state(watch) == JOB
    watch.offer(replace(JOB, rate=7.0))
    waiting = asyncio.ensure_future(next_state(watch))
    await asyncio.wait({waiting}, timeout=0.01)
    assert not waiting.done()
    watch.offer(replace(JOB, seq=5))
    assert (await waiting).seq == 5


async def test_many_streams_cost_one_read_a_poll():
    table = Table(JOB, replace(JOB, id="j2", dataset_id="d2"))
    hub = hub_of(table, poll_interval_s=3600)
    watches = [hub.watch(dataset_id, "embed") for dataset_id in ("d1", "d2") * 100]
    for watch in watches:
        assert (await next_state(watch)).dataset_id == watch.key[0]
    assert table.n_polls == 1


async def test_nobody_polls_when_nobody_watches():
    table = Table(JOB)
    hub = hub_of(table)
    watch = hub.watch("d1", "embed")
    await next_state(watch)
    watch.close()
    await asyncio.wait_for(hub._task, PATIENCE_S)
    n_polls = table.n_polls
    await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.02)
    assert table.n_polls == n_polls
    assert await next_state(hub.watch("d1", "embed")) == JOB


async def test_a_watch_opened_while_a_poll_is_under_way_gets_what_was_read_after_it_opened():
    table = Table()
    hub = hub_of(table, poll_interval_s=3600)
    reading, may_answer = asyncio.Event(), asyncio.Event()
    latest = table.ask

    async def slow(method, *args):
        answer = await latest(method, *args)
        reading.set()
        await may_answer.wait()
        return answer

    table.ask = slow
    early = hub.watch("d1", "embed")
    await reading.wait()
    table.put(JOB)
    late = hub.watch("d1", "embed")
    may_answer.set()
    assert await next_state(late) == JOB
    assert await next_state(early) in (None, JOB)


async def test_a_place_is_taken_until_it_is_given_back():
    hub = hub_of(Table(JOB), max_streams=1)
    watch = hub.watch("d1", "embed")
    with pytest.raises(Overloaded):
        hub.watch("d1", "embed")
    watch.close()
    assert len(hub) == 0
    hub.watch("d1", "embed")


async def test_closing_twice_gives_one_place_back():
    hub = hub_of(Table(JOB))
    kept, closed = hub.watch("d1", "embed"), hub.watch("d1", "embed")
    closed.close()
    closed.close()
    assert len(hub) == 1
    assert kept is not closed


async def test_the_stream_ends_when_its_dataset_is_deleted():
    table = Table(JOB)
    watch = hub_of(table).watch("d1", "embed")
    await next_state(watch)
    table.jobs.clear()
    assert await next_state(watch) is ENDED


async def test_an_outage_is_waited_out_with_growing_pauses():
    table = Table(JOB)
    table.fault = StoreUnavailable("away")
    hub = hub_of(table)
    watch = hub.watch("d1", "embed")
    while table.n_polls < 4:
        table.polled.clear()
        await table.polled.wait()
    assert len(hub) == 1
    table.fault = None
    assert await next_state(watch) == JOB


async def test_an_unforeseen_failure_ends_the_streams_and_the_next_one_starts_afresh(caplog):
    table = Table(JOB)
    table.fault = RuntimeError("a bug")
    hub = hub_of(table)
    watch = hub.watch("d1", "embed")
    assert await next_state(watch) is ENDED
    assert "a bug" in caplog.text
    table.fault = None
    assert await next_state(hub.watch("d1", "embed")) == JOB


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (None, "idle"),
        (replace(JOB, phase="queued"), "running"),
        (JOB, "running"),
        (replace(JOB, kind="reduce", phase="fitting"), "fitting"),
        (DONE, "complete"),
        (replace(DONE, status="error"), "error"),
        (replace(DONE, status="cancelled", phase="fitting"), "cancelled"),
    ],
    ids=["none", "queued", "running", "fitting", "complete", "error", "cancelled"],
)
def test_the_status_of_an_event_is_one_of_the_contracts(job, status):
    assert state_of(job)["status"] == status


def events_of(wire: bytes):
    """What httpx-sse makes of bytes on the wire."""
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=wire)
    return list(EventSource(answer).iter_sse())


def decoded(event: bytes):
    [found] = events_of(event)
    return found


def test_a_ping_between_events_is_no_event_for_httpx_sse():
    """The comment's blank line used to be one, without data, as soon as the stream had lasted 15 s."""
    events = events_of(progress_event(JOB) + PING + PING + progress_event(DONE) + PING)
    assert [json.loads(event.data)["status"] for event in events] == ["running", "complete"]


def test_an_event_is_the_whole_state_under_the_id_of_its_version():
    event = decoded(progress_event(JOB, retry_ms=1500))
    assert (event.event, event.id, event.retry) == ("progress", "j1:4", 1500)
    assert json.loads(event.data) == {
        "status": "running",
        "processed": 3,
        "total": 10,
        "message": "Embedding 3 of 10",
        "job_id": "j1",
        "skipped": 1,
        "rate": 2.5,
        "eta_s": 2.8,
    }


def test_a_dataset_without_a_job_has_an_event_without_an_id():
    event = decoded(progress_event(None))
    assert (event.event, event.id, event.retry) == ("progress", "", None)
    assert (json.loads(event.data)["status"], json.loads(event.data)["job_id"]) == ("idle", None)


def test_a_message_of_several_lines_stays_one_event():
    message = "a\nevent: forged\r\n\r\nb"
    encoded = progress_event(replace(JOB, message=message))
    assert [line for line in encoded.splitlines() if line.startswith(b"event:")] == [b"event: progress"]
    assert json.loads(decoded(encoded).data)["message"] == message


@pytest.mark.parametrize(
    ("job", "last_event_id", "expected"),
    [
        (DONE, "j1:9", True),
        (DONE, "j1:8", False),
        (DONE, "j1:10", False),
        (DONE, "j0:9", False),
        (DONE, "", False),
        (JOB, "j1:4", False),
        (None, "j1:9", False),
    ],
)
def test_only_the_very_terminal_event_counts_as_the_end_seen(job, last_event_id, expected):
    assert has_seen_end(job, last_event_id) is expected


async def test_with_many_streams_the_middle_of_a_job_is_told_in_turns_and_its_end_at_once(monkeypatch):
    monkeypatch.setattr(progress_hub, "EVENTS_PER_S", 0.01)  # one stream's turn comes every hundred seconds
    table = Table(JOB)
    watch = hub_of(table).watch("d1", "embed")
    assert await next_state(watch) == JOB
    table.put(replace(JOB, processed=5, seq=5))
    for _ in range(3):
        table.polled.clear()
        await asyncio.wait_for(table.polled.wait(), PATIENCE_S)
    table.put(DONE)
    assert await next_state(watch) == DONE


async def test_a_stream_that_opens_between_turns_has_its_first_state_at_once(monkeypatch):
    monkeypatch.setattr(progress_hub, "EVENTS_PER_S", 0.01)
    table = Table(JOB)
    hub = hub_of(table)
    assert await next_state(hub.watch("d1", "embed")) == JOB
    assert await next_state(hub.watch("d1", "embed")) == JOB


async def test_streams_that_wait_for_a_job_hear_of_its_beginning_in_turns_and_of_its_end_at_once(monkeypatch):
    monkeypatch.setattr(progress_hub, "EVENTS_PER_S", 0.01)
    table = Table()
    hub = hub_of(table)
    watches = [hub.watch("d1", "embed") for _ in range(3)]
    assert [await next_state(watch) for watch in watches] == [None] * len(watches)
    table.put(JOB)
    table.polled.clear()
    await asyncio.wait_for(table.polled.wait(), PATIENCE_S)
    table.put(DONE)
    assert [await next_state(watch) for watch in watches] == [DONE] * len(watches)


async def test_a_full_house_is_told_the_end_a_few_at_a_time_so_that_others_are_answered_in_between(monkeypatch):
    table = Table(JOB)
    hub = hub_of(table)
    watches = [hub.watch("d1", "embed") for _ in range(2 * progress_hub.TURN_STREAMS + 1)]
    told = []

    async def count_told(seconds):
        told.append(sum(watch.job == DONE for watch in watches))

    monkeypatch.setattr(progress_hub.asyncio, "sleep", count_told)
    assert [await next_state(watch) for watch in watches] == [JOB] * len(watches)
    told.clear()
    table.put(DONE)
    assert [await next_state(watch) for watch in watches] == [DONE] * len(watches)
    assert told == [progress_hub.TURN_STREAMS, 2 * progress_hub.TURN_STREAMS]
