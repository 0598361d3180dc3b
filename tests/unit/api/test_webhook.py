"""`notify_url`: which are accepted, and where a job says what became of it."""

import base64

import pytest

from serve_app.config import Settings, SettingsError
from tests.unit.api import work

KEY = base64.b64encode(bytes(32)).decode()
HOOK = "https://hooks.example.org/constellate?a=1"


@pytest.fixture
def settings(tmp_path, root):
    return Settings(
        data_dir=tmp_path / "state", dataset_roots=(root, "https://hooks.example.org/constellate"), notify_key=KEY
    )


async def started(client, dataset, part="generate", **body):
    return await client.post(f"/datasets/{dataset['id']}/embeddings/{part}", json=body)


async def job_of(client, answer):
    assert answer.status_code == 202, answer.text
    return (await client.get(f"/jobs/{answer.json()['job_id']}")).json()


async def test_a_job_says_that_its_webhook_is_pending_and_hides_the_url(client, services, dataset):
    answer = await started(client, dataset, notify_url=HOOK)
    job = await job_of(client, answer)
    assert (job["notified"], job["notify_detail"]) == ("pending", None)
    assert "hooks.example" not in str(job)
    await work.embed(services)
    answer = await started(client, dataset, "reduce", notify_url=HOOK, n_neighbors=3)
    assert (await job_of(client, answer))["notified"] == "pending"
    await work.reduce(services)


async def test_a_graph_job_takes_a_webhook_too(client, services, dataset):
    await started(client, dataset)
    await work.embed(services)
    path = f"/datasets/{dataset['id']}/graph"
    answer = await client.post(path, json={"notify_url": "https://elsewhere.org/"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    answer = await client.post(path, json={"k": 3, "notify_url": HOOK})
    assert (await job_of(client, answer))["notified"] == "pending"


async def test_a_job_without_a_webhook_says_none(client, dataset):
    assert (await job_of(client, await started(client, dataset)))["notified"] is None


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.org/",
        "https://hooks.example.org/other",
        "http://hooks.example.org/constellate",
        "x",
        "s3://b/k",
    ],
)
async def test_a_url_that_is_not_below_a_root_is_refused_and_starts_nothing(client, dataset, url):
    answer = await started(client, dataset, notify_url=url)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    answer = await client.post(f"/datasets/{dataset['id']}/embeddings/import", params={"notify_url": url}, content=b"x")
    assert answer.status_code in (415, 422)
    assert (await client.get("/jobs")).json() == []


async def test_a_service_without_a_key_refuses_webhooks(client, dataset, app):
    context = app.state.context
    app.state.context = type(context)(context.settings.model_copy(update={"notify_key": None}), context.find_services)
    assert "CONSTELLATE_NOTIFY_KEY" in (await started(client, dataset, notify_url=HOOK)).json()["detail"]


@pytest.mark.parametrize("key", ["short", "not base64 at all, but long enough", KEY + "x"])
def test_a_key_that_is_no_secret_is_refused_at_the_start(key):
    with pytest.raises(SettingsError, match="openssl rand"):
        Settings.from_environment({"CONSTELLATE_NOTIFY_KEY": key})
    assert Settings.from_environment({"CONSTELLATE_NOTIFY_KEY": f"whsec_{KEY}"}).notify_key
