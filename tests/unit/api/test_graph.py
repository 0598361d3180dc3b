"""The neighbour graph over HTTP: begun, followed, cancelled, and asked in place of all pairs."""

import json
import re
from dataclasses import replace

import httpx
import pytest

from serve_app.api import create_app
from serve_app.jobs.graph_job import graph_job
from serve_app.search.searcher import LocalSearcher
from serve_app.search.set_files import SetFiles
from serve_app.store.jobs import Jobs
from tests.live_service import InProcess
from tests.unit.api import work
from tests.unit.api.conftest import BASE_URL


@pytest.fixture
async def large(settings, services, embedded):
    """A client to which four images are many, and the path of their dataset."""
    searcher = LocalSearcher(services.writer, settings.sets_path, max_pairwise_rows=3)
    app = create_app(settings, lambda: replace(services, searcher=searcher))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as client:
        yield client, f"/datasets/{embedded['id']}"


async def make(services):
    """Carry the running graph job to its end."""
    sets = SetFiles(services.settings.sets_path, services.writer)
    claim = await work.claim(services)
    await graph_job(claim, services.writer, sets, InProcess())
    return await services.writer.ask(Jobs.get, claim.job.id)


def _names(answer):
    """The names of an answer's samples."""
    return re.findall(r'"file_name":"([^"]*)"', answer.text)


async def last_event(client, path):
    events = (await client.get(f"{path}/graph/progress")).text
    return json.loads(events.strip().split("data: ")[-1].splitlines()[0])


async def test_a_large_set_is_asked_once_its_graph_is_made(large, client, services):
    exact, (client, path) = client, large
    refused = await client.get(f"{path}/duplicates", params={"threshold": 0.01})
    assert (refused.status_code, refused.json()["code"], refused.json()["k"]) == (409, "graph_needed", 15)
    assert f"POST {path}/graph" in refused.json()["detail"]
    assert (await client.get(f"{path}/outliers")).json()["code"] == "graph_needed"
    assert (await client.get(f"{path}/diverse", params={"n": 2})).status_code == 200

    begun = await client.post(f"{path}/graph", json={"k": refused.json()["k"]})
    assert (begun.status_code, begun.headers["location"]) == (202, f"/jobs/{begun.json()['job_id']}")
    assert services.runner.n_nudges == 1
    job = await make(services)
    assert (job.kind, job.status, job.processed, job.total) == ("graph", "complete", 4, 4)
    assert job.message == "Found 3 neighbours of each of 4 images"

    for question in ("duplicates?threshold=0.01", "duplicates?threshold=0.99", "outliers?k=3"):
        found = await client.get(f"{path}/{question}")
        assert found.status_code == 200, found.text
        assert _names(found) == _names(await exact.get(f"{path}/{question}"))


async def test_the_stream_of_a_graph_tells_its_end_and_other_streams_do_not(large, services):
    client, path = large
    await client.post(f"{path}/graph")
    job = await make(services)
    assert (await last_event(client, path))["job_id"] == job.id
    status = (await client.get(f"{path}/embeddings/status")).json()
    embedded = (await services.writer.ask(Jobs.latest, [(job.dataset_id, "embed")]))[0]
    assert (embedded.id, status["job_id"]) == (status["job_id"], embedded.id)
    assert len((await client.get(f"{path}/embeddings/skipped")).json()["items"]) == 1


async def test_a_graph_is_refused_without_vectors_beside_another_job_and_with_a_senseless_k(client, dataset, services):
    path = f"/datasets/{dataset['id']}"
    assert (await client.post(f"{path}/graph")).json()["code"] == "no_embeddings"
    await client.post(f"{path}/embeddings/generate")
    await work.embed(services)
    for k in (0, 101, "7", 1.5):
        assert (await client.post(f"{path}/graph", json={"k": k})).status_code == 422, k
    await client.post(f"{path}/embeddings/reduce")
    assert (await client.post(f"{path}/graph")).json()["code"] == "job_running"


async def test_a_cancelled_graph_job_is_over_and_its_attempt_fenced(large, services):
    client, path = large
    begun = (await client.post(f"{path}/graph")).json()
    claim = await work.claim(services)
    await services.writer.ask(Jobs.advance, claim.job.id, claim.attempt, done=3, message="on the way")
    job = await services.writer.ask(Jobs.advance, claim.job.id, claim.attempt, done=2, message="older")
    assert (job.processed, job.message) == (3, "on the way")
    assert (await client.post(f"{path}/graph/cancel")).json()["job_id"] == begun["job_id"]
    assert (await client.post(f"{path}/graph/cancel")).json()["code"] == "nothing_running"
    with pytest.raises(Exception, match="is over"):
        await services.writer.ask(Jobs.complete, claim.job.id, claim.attempt, "done")
    assert (await last_event(client, path))["status"] == "cancelled"
