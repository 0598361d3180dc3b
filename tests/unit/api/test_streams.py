import asyncio
import json

import pytest

from serve_app.api.progress_hub import ProgressHub
from serve_app.errors import StoreUnavailable
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors
from tests.unit.api import work
from tests.unit.api.asgi import opened

FIELDS = ["status", "processed", "total", "message", "job_id", "skipped", "rate", "eta_s"]


@pytest.fixture
def hub(app, services):
    """The application's hub, polling often enough for a test."""
    app.state.context.progress = ProgressHub(lambda: services, poll_interval_s=0.01)
    return app.state.context.progress


def path(dataset, tail="progress"):
    return f"/datasets/{dataset['id']}/embeddings/{tail}"


async def generate(client, dataset, **options):
    return (await client.post(path(dataset, "generate"), json=options)).json()["job_id"]


async def states(answer, *, until=None):
    """The data of each event, up to a status or the end."""
    collected = []
    async for event in answer.events():
        assert event.event == "progress"
        state = json.loads(event.data)
        collected.append(state)
        if state["status"] == until:
            break
    return collected


async def test_the_first_event_comes_at_once_and_is_the_present_state(app, services, client, dataset):
    app.state.context.progress = ProgressHub(lambda: services, poll_interval_s=3600)
    job_id = await generate(client, dataset)
    async with opened(app, path(dataset)) as answer:
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        event = await anext(answer.events())
        assert event.event == "progress"
        assert event.id.startswith(f"{job_id}:")
        assert event.retry == 1500
        state = json.loads(event.data)
        assert list(state) == FIELDS
        assert (state["status"], state["processed"], state["total"], state["job_id"]) == ("running", 0, 5, job_id)


async def test_a_dataset_without_a_job_is_idle_and_waits_for_one(app, hub, services, client, dataset):
    async with opened(app, path(dataset)) as answer:
        events = answer.events()
        idle = await anext(events)
        assert idle.id == ""
        assert json.loads(idle.data) | {"message": ""} == {
            "status": "idle",
            "processed": 0,
            "total": 0,
            "message": "",
            "job_id": None,
            "skipped": 0,
            "rate": None,
            "eta_s": None,
        }
        job_id = await generate(client, dataset)
        running = await anext(events)
        assert json.loads(running.data)["job_id"] == job_id
        assert running.retry is None


async def test_a_stream_tells_each_commit_and_ends_after_the_terminal_event(app, hub, services, client, dataset):
    await generate(client, dataset)
    async with opened(app, path(dataset)) as answer:
        collected = []
        claimed = None
        async for event in answer.events():
            state = json.loads(event.data)
            collected.append(state)
            if claimed is None:
                claimed = await work.begin(services)
                await work.stage(services, claimed, limit=2)
            elif state["processed"] == 2:
                await work.stage(services, claimed, block_no=2)
            elif state["processed"] == 5 and state["status"] == "running":
                await services.writer.ask(Vectors.commit, claimed.job.id, claimed.attempt)
    processed = [state["processed"] for state in collected]
    assert processed == sorted(processed)
    assert {0, 2, 5} <= set(processed)
    last = collected[-1]
    assert (last["status"], last["processed"], last["total"], last["skipped"]) == ("complete", 5, 5, 1)
    assert [state["status"] for state in collected].count("complete") == 1
    assert len(hub) == 0


async def test_a_job_that_is_over_is_told_once_and_the_stream_ends(app, hub, client, embedded):
    async with opened(app, path(embedded)) as answer:
        [state] = await states(answer)
    assert state["status"] == "complete"
    assert state["processed"] == state["total"] == 5


async def test_a_stream_opened_after_a_second_generate_shows_the_second_job(app, hub, client, embedded):
    job_id = await generate(client, embedded)
    async with opened(app, path(embedded)) as answer:
        [state] = await states(answer, until="running")
    assert state["job_id"] == job_id


async def test_a_stream_follows_its_job_to_the_end_although_a_new_one_has_begun(app, services, client, dataset):
    hub = app.state.context.progress = ProgressHub(lambda: services, poll_interval_s=3600)
    first = await generate(client, dataset)
    async with opened(app, path(dataset)) as answer:
        events = answer.events()
        assert json.loads((await anext(events)).data)["job_id"] == first
        await work.embed(services)
        second = await generate(client, dataset)
        other = hub.watch(dataset["id"], "embed")  # wakes the poll
        last = json.loads((await anext(events)).data)
        assert (last["job_id"], last["status"]) == (first, "complete")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        await other.changed()
        assert other.job.id == second


async def test_cancelling_ends_the_stream_with_cancelled(app, hub, client, dataset):
    await generate(client, dataset)
    async with opened(app, path(dataset)) as answer:
        events = answer.events()
        await anext(events)
        await client.post(path(dataset, "cancel"))
        assert json.loads((await anext(events)).data)["status"] == "cancelled"


async def test_a_job_that_fails_ends_with_error_and_its_reason(app, hub, services, client, dataset):
    await generate(client, dataset)
    claimed = await work.claim(services)
    await services.writer.ask(Jobs.fail, claimed.job.id, claimed.attempt, "the weights are gone")
    async with opened(app, path(dataset)) as answer:
        [state] = await states(answer)
    assert (state["status"], state["message"]) == ("error", "the weights are gone")


async def test_a_reduction_has_a_stream_of_its_own_with_fitting_as_a_status(app, hub, services, client, embedded):
    async with opened(app, path(embedded, "reduce/progress")) as answer:
        events = answer.events()
        assert json.loads((await anext(events)).data)["status"] == "idle"
        await client.post(path(embedded, "reduce"))
        assert json.loads((await anext(events)).data)["status"] == "running"
        claimed = await work.claim(services)
        await services.writer.ask(Jobs.announce, claimed.job.id, claimed.attempt, phase="fitting", message="Fitting")
        fitting = (await states(answer, until="fitting"))[-1]
        assert (fitting["status"], fitting["message"]) == ("fitting", "Fitting")


async def last_event_id(app, dataset):
    async with opened(app, path(dataset)) as answer:
        return (await anext(answer.events())).id


async def test_a_client_that_has_seen_the_end_is_told_to_stop(app, hub, embedded):
    seen = await last_event_id(app, embedded)
    async with opened(app, path(embedded), headers={"Last-Event-ID": seen}) as answer:
        assert answer.status == 204
    assert len(hub) == 0


async def test_any_other_last_event_id_gets_the_full_state(app, hub, embedded):
    job_id, _, seq = (await last_event_id(app, embedded)).partition(":")
    for seen in (f"{job_id}:0", f"{job_id}:{int(seq) + 7}", f"other:{seq}", "garbage", "", ":", f"{job_id}", "'; --"):
        async with opened(app, path(embedded), headers={"Last-Event-ID": seen}) as answer:
            assert answer.status == 200
            assert [state["status"] for state in await states(answer)] == ["complete"]


async def test_a_running_job_is_streamed_whatever_was_seen(app, hub, client, dataset):
    await generate(client, dataset)
    seen = await last_event_id(app, dataset)
    async with opened(app, path(dataset), headers={"Last-Event-ID": seen}) as answer:
        assert answer.status == 200
        assert json.loads((await anext(answer.events())).data)["status"] == "running"


async def test_an_outage_of_the_store_keeps_the_stream_and_is_no_status(
    app, hub, services, client, dataset, monkeypatch
):
    await generate(client, dataset)
    call, n_failures = services.writer.ask, 0
    failed = asyncio.Event()

    async def away(method, *args, **kwargs):
        nonlocal n_failures
        if method is Jobs.latest:
            n_failures += 1
            if n_failures == 3:
                failed.set()
            raise StoreUnavailable("the writer is away")
        return await call(method, *args, **kwargs)

    async with opened(app, path(dataset)) as answer:
        events = answer.events()
        assert json.loads((await anext(events)).data)["status"] == "running"
        monkeypatch.setattr(services.writer, "ask", away)
        await failed.wait()
        assert answer.chunks.empty()
        monkeypatch.setattr(services.writer, "ask", call)
        await work.embed(services)
        assert [state["status"] for state in await states(answer)][-1] == "complete"


async def test_above_the_cap_a_stream_is_refused_until_another_ends(app, services, client, dataset):
    hub = app.state.context.progress = ProgressHub(lambda: services, poll_interval_s=0.01, max_streams=2)
    async with opened(app, path(dataset)), opened(app, path(dataset)):
        answer = await client.get(path(dataset))
        assert answer.status_code == 503
        assert answer.json()["code"] == "overloaded"
        assert int(answer.headers["retry-after"]) > 0
    assert len(hub) == 0
    async with opened(app, path(dataset)) as answer:
        assert answer.status == 200


async def test_head_and_options_do_not_hang(client, dataset):
    head = await client.head(path(dataset))
    assert (head.status_code, head.headers["content-type"], head.content) == (
        200,
        "text/event-stream; charset=utf-8",
        b"",
    )
    assert (await client.options(path(dataset))).status_code == 405


async def test_a_stream_gives_its_place_back_when_the_server_fails_to_say_that_the_client_has_gone(app, hub, dataset):
    """Ray Serve's `receive` raises `TaskCancelledError` now and then, of requests that are reset before they answer."""
    async with opened(app, path(dataset)) as answer:
        await anext(answer.events())
        answer.error_on_leaving = RuntimeError("this task was cancelled")
    assert len(hub) == 0
