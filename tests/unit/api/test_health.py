import httpx

from serve_app.api import create_app
from serve_app.errors import ModelUnavailable, StoreUnavailable
from tests.unit.api.conftest import BASE_URL


async def test_healthz_needs_no_service_at_all(settings):
    def nowhere():
        raise StoreUnavailable("no replica yet")

    transport = httpx.ASGITransport(create_app(settings, nowhere))
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        answer = await client.get("/healthz")
        assert answer.status_code == 200
        assert answer.json() == {"status": "ok", "service": "constellate"}
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/datasets")).status_code == 503


async def test_readyz_embeds_and_writes(client, services):
    answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "model": "dinov2-base", "warnings": []}
    assert answer.headers["cache-control"] == "no-store"
    assert services.embedder.n_images == 1


async def test_readyz_says_what_is_wrong_and_with_which_component(client, services):
    services.embedder.fault = ModelUnavailable("the weights are gone")
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    problem = answer.json()
    assert problem["code"] == "not_ready"
    assert set(problem["components"]) == {"model"}
    assert "the weights are gone" in problem["detail"]
    assert int(answer.headers["retry-after"]) > 0


async def test_readyz_notices_a_database_that_is_gone(client, services, settings):
    assert (await client.get("/jobs")).status_code == 200
    settings.database_path.unlink()
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json()["components"]) == {"store"}
    assert str(settings.data_dir) not in answer.text
