"""Registrations and rescans of clients that do not wait: `Prefer: respond-async`."""

import asyncio

import pytest

from serve_app.api import registration
from serve_app.errors import InvalidRequest, ServiceError
from serve_app.jobs.listing import Lister
from serve_app.jobs.listing_job import listing_job
from serve_app.store.jobs import Jobs
from tests.unit.api import work
from tests.unit.api.asgi import opened
from tests.unit.api.conftest import png

ASYNC = {"Prefer": "respond-async"}


async def post(client, **body):
    return await client.post("/datasets", json=body, headers=ASYNC)


async def run(services):
    """Carry the one running job to its end, as the loop does."""
    claimed = await work.claim(services)
    await listing_job(claimed, services.writer, Lister(services.settings))
    return await services.writer.ask(Jobs.get, claimed.job.id)


async def test_a_registration_that_does_not_wait_appears_when_its_job_is_complete(client, services, root):
    answer = await post(client, name="flowers", root=str(root / "flowers"))
    assert answer.status_code == 202, answer.text
    started = answer.json()
    assert answer.headers["location"] == f"/jobs/{started['job_id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    assert started["status"] == "started"
    assert services.runner.n_nudges == 1
    job = (await client.get(answer.headers["location"])).json()
    assert (job["kind"], job["status"], job["phase"]) == ("register", "running", "queued")
    assert (await client.get("/datasets")).json() == []
    assert (await client.get(f"/datasets/{started['dataset_id']}")).status_code == 404

    await run(services)
    job = (await client.get(answer.headers["location"])).json()
    assert (job["status"], job["processed"], job["total"]) == ("complete", 5, 5)
    assert job["message"] == "Registered 5 images"
    [dataset] = (await client.get("/datasets")).json()
    assert (dataset["id"], dataset["name"], dataset["sample_count"]) == (started["dataset_id"], "flowers", 5)
    plain = await client.post("/datasets", json={"name": "again", "root": str(root / "flowers")})
    assert {**plain.json(), "id": "", "name": "", "created_at": ""} == {
        **dataset,
        "id": "",
        "name": "",
        "created_at": "",
    }


@pytest.mark.parametrize(
    "header", ["respond-async, wait=10", "wait=5, Respond-Async", "handling=lenient, respond-async; x=1"]
)
async def test_the_preference_is_found_among_others(client, root, header):
    body = {"name": "flowers", "root": str(root / "flowers")}
    assert (await client.post("/datasets", json=body, headers={"Prefer": header})).status_code == 202


@pytest.mark.parametrize("header", ["wait=10", "respond-asynchronously", 'x="respond-async"'])
async def test_other_preferences_change_nothing(client, root, header):
    body = {"name": "flowers", "root": str(root / "flowers")}
    assert (await client.post("/datasets", json=body, headers={"Prefer": header})).status_code == 201


async def test_what_is_known_before_the_listing_is_refused_at_once(client, dataset, root, tmp_path):
    taken = await post(client, name="flowers", root=str(root / "flowers"))
    assert (taken.status_code, taken.json()["dataset_id"]) == (409, dataset["id"])
    assert (await post(client, name="n", root="/etc")).status_code == 403
    assert (await post(client, name="n", root="missing")).status_code == 422
    assert (await post(client, name="", root="flowers")).status_code == 422
    assert (await client.get("/jobs")).json() == []


async def test_a_name_that_a_running_registration_will_give_is_refused_with_its_job(client, root):
    first = await post(client, name="flowers", root=str(root / "flowers"))
    second = await post(client, name="flowers", root=str(root / "flowers"))
    assert second.status_code == 409
    assert second.json()["job_id"] == first.json()["job_id"]


async def test_what_the_listing_finds_becomes_the_jobs_error_in_the_same_words(client, services, root):
    (root / "flowers" / "annotations.json").write_text("{")
    body = {"name": "broken", "root": str(root / "flowers"), "format": "coco"}
    body["annotations"] = str(root / "flowers" / "annotations.json")
    waited = await client.post("/datasets", json=body)
    assert waited.status_code == 422
    assert (await post(client, **body)).status_code == 202
    with pytest.raises(InvalidRequest) as raised:
        await run(services)
    assert raised.value.detail == waited.json()["detail"]


async def test_a_cancelled_registration_leaves_nothing_but_its_job(client, services, root):
    started = (await post(client, name="flowers", root=str(root / "flowers"))).json()
    claimed = await work.claim(services)
    for path in (f"/datasets/{started['dataset_id']}/embeddings/cancel", f"/jobs/{started['job_id']}/cancel"):
        answer = await client.post(path)
        assert answer.status_code in (202, 404, 409)
    job = (await client.get(f"/jobs/{started['job_id']}")).json()
    assert (job["status"], job["message"]) == ("cancelled", "Cancelled at 0 files")
    with pytest.raises(ServiceError):
        await listing_job(claimed, services.writer, Lister(services.settings))
    assert (await client.get("/datasets")).json() == []
    assert (await post(client, name="flowers", root=str(root / "flowers"))).status_code == 202


async def test_a_job_is_cancelled_by_its_own_id_and_only_while_it_runs(client, services, root):
    started = (await post(client, name="flowers", root=str(root / "flowers"))).json()
    answer = await client.post(f"/jobs/{started['job_id']}/cancel")
    assert answer.status_code == 202
    assert answer.json()["dataset_id"] == started["dataset_id"]
    again = await client.post(f"/jobs/{started['job_id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_running")
    assert (await client.post("/jobs/none/cancel")).json()["code"] == "job_not_found"


async def test_a_job_is_followed_by_its_own_id_before_its_dataset_is_there(app, client, services, root):
    started = (await post(client, name="flowers", root=str(root / "flowers"))).json()
    path = f"/jobs/{started['job_id']}/progress"
    async with opened(app, path) as answer:
        assert b'"status": "running"' in await asyncio.wait_for(answer.chunks.get(), 30)
        await run(services)
        text = b""
        while (chunk := await asyncio.wait_for(answer.chunks.get(), 30)) is not None:
            text += chunk
    assert b'"status": "complete", "processed": 5, "total": 5' in text
    job = (await client.get(f"/jobs/{started['job_id']}")).json()
    seen = f"{job['id']}:{job['seq']}"
    assert (await client.get(path, headers={"Last-Event-ID": seen})).status_code == 204
    assert (await client.get("/jobs/none/progress")).status_code == 404


async def test_a_rescan_that_does_not_wait_says_what_changed_in_its_last_message(client, services, dataset, root):
    (root / "flowers" / "rose" / "new.png").write_bytes(png((1, 2, 3)))
    (root / "flowers" / "tulip" / "broken.png").unlink()
    answer = await client.post(f"/datasets/{dataset['id']}/rescan", headers=ASYNC)
    assert (answer.status_code, answer.json()["dataset_id"]) == (202, dataset["id"])
    waiting = await client.post(f"/datasets/{dataset['id']}/rescan")
    assert (waiting.status_code, waiting.json()["job_id"]) == (409, answer.json()["job_id"])
    job = await run(services)
    assert (job.kind, job.status, job.message) == ("rescan", "complete", "1 added, 1 removed")
    assert (await client.get(f"/datasets/{dataset['id']}")).json()["sample_count"] == 5
    assert (await client.post("/datasets/none/rescan", headers=ASYNC)).status_code == 404


async def test_more_files_than_a_client_may_wait_for_need_a_job(client, services, dataset, root, monkeypatch):
    monkeypatch.setattr(registration, "MAX_WAITED_FILES", 4)
    for path, body in (
        ("/datasets", {"name": "n", "root": str(root / "flowers")}),
        (f"/datasets/{dataset['id']}/rescan", None),
    ):
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "async_needed")
        assert "Prefer: respond-async" in answer.json()["detail"]
    with services.writer._database.read() as session:
        assert session.q("SELECT * FROM scan_files") == []
    assert (await post(client, name="n", root=str(root / "flowers"))).status_code == 202


async def test_the_document_says_that_nobody_may_be_told(app):
    """The document of the API forbade the null that every `notify_url` took."""
    schemas = app.openapi()["components"]["schemas"]
    for name in ("NewDataset", "RescanOptions", "GenerateOptions", "ReduceOptions"):
        assert {"type": "null"} in schemas[name]["properties"]["notify_url"]["anyOf"], name


async def test_a_url_to_tell_of_the_end_needs_a_job(client, root):
    body = {"name": "n", "root": str(root / "flowers"), "notify_url": "https://example.org/done"}
    answer = await client.post("/datasets", json=body)
    assert answer.status_code == 422
    assert "Prefer: respond-async" in answer.json()["detail"]
