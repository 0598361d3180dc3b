import asyncio
import json

import httpx
import numpy as np
import pytest

from serve_app.api import create_app, served_model
from serve_app.api.guards import LIGHTLY_LIMIT_BYTES
from serve_app.config import Settings
from serve_app.errors import ModelUnavailable, Unavailable
from tests.fakes import FakeModel
from tests.unit.api.conftest import BASE_URL, png

ROUTE = "/v1/embed/images/bytes"


def parts(*images):
    """The multipart form as LightlyStudio's client writes it."""
    return [("files", (str(i), image, "application/octet-stream")) for i, image in enumerate(images)]


def assert_malformed(answer):
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    assert problem["detail"]


async def test_describe_says_what_the_protocol_asks_for(client, services):
    answer = await client.get("/v1/describe")
    assert answer.status_code == 200
    assert answer.json() == {
        "protocol_version": "1.0",
        "space_key": "fake-space",
        "dimension": 768,
        "ready": True,
        "capabilities": ["image_bytes"],
        "limits": {"max_batch_size": services.policy.request_images, "max_request_bytes": 32 * 2**20},
    }


async def test_texts_are_embedded_and_advertised_where_the_model_takes_them(client, services):
    assert (await client.post("/v1/embed/texts", json={"texts": ["a dog"]})).status_code == 404
    services.embedder.model = FakeModel(no_text="")
    assert (await client.get("/v1/describe")).json()["capabilities"] == ["image_bytes", "text"]
    body = (await client.post("/v1/embed/texts", json={"texts": ["a dog", "a cat"]})).json()
    assert body["kept_indices"] == [0, 1]
    expected = [services.embedder.model.vector(text) for text in (b"a dog", b"a cat")]
    assert np.array_equal(np.array(body["embeddings"], np.float32), np.stack(expected))


@pytest.mark.parametrize("body", [{"texts": []}, {"texts": [""]}, {"texts": "a dog"}, {"texts": [3]}, {}], ids=str)
async def test_texts_that_are_none_are_a_400(client, services, body):
    services.embedder.model = FakeModel(no_text="")
    assert_malformed(await client.post("/v1/embed/texts", json=body))


async def test_vectors_come_in_input_order_without_the_images_that_cannot_be_decoded(client, services):
    images = [png((i, 0, 0)) for i in range(40)]
    images[0] = images[17] = b"not an image"
    answer = await client.post(ROUTE, files=parts(*images))
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["space_key", "dimension", "kept_indices", "embeddings"]
    assert (body["space_key"], body["dimension"]) == ("fake-space", 768)
    assert body["kept_indices"] == [i for i in range(40) if i not in (0, 17)]
    expected = np.stack([services.embedder.model.vector(images[i]) for i in body["kept_indices"]])
    assert np.array_equal(np.array(body["embeddings"], np.float32), expected)


async def test_a_request_without_a_single_image_that_decodes_is_answered_with_empty_lists(client):
    body = (await client.post(ROUTE, files=parts(b"text", b""))).json()
    assert (body["kept_indices"], body["embeddings"]) == ([], [])


async def test_one_request_is_spread_in_chunks_over_the_replicas(client, services):
    await client.post(ROUTE, files=parts(*[png()] * services.policy.request_images))
    assert services.embedder.n_images == services.policy.request_images
    assert services.embedder.n_calls == services.policy.request_images / services.policy.chunk_images > 1


@pytest.mark.parametrize(
    "form",
    [
        {"files": [("image", ("0", png()))]},
        {"files": [("files", (None, png()))]},
        {"data": {"files": "text"}, "files": [("other", ("0", png()))]},
        {"json": {"files": []}},
        {"content": b"--b", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        {"content": b"--b", "headers": {"Content-Type": "multipart/form-data"}},
        {},
    ],
    ids=["other field", "no file name", "text field", "json", "torn form", "no boundary", "no body"],
)
async def test_a_malformed_request_is_a_400_and_never_a_422(client, form):
    assert_malformed(await client.post(ROUTE, **form))


async def test_more_images_than_described_are_too_large(client, services):
    n_images = services.policy.request_images + 1
    answer = await client.post(ROUTE, files=parts(*[png()] * n_images))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("declared", [True, False])
async def test_more_bytes_than_described_are_too_large_whether_declared_or_not(client, declared):
    async def body():
        yield b"--b\r\nContent-Disposition: form-data; name=files; filename=0\r\n\r\n"
        for _ in range(LIGHTLY_LIMIT_BYTES // 2**20):
            yield bytes(2**20)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    if declared:
        headers["Content-Length"] = str(LIGHTLY_LIMIT_BYTES + 80)
    answer = await client.post(ROUTE, content=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("method_and_route", [("GET", "/v1/describe"), ("POST", ROUTE)])
async def test_a_loading_model_is_to_be_asked_again_in_five_seconds(client, services, monkeypatch, method_and_route):
    async def never(model):
        await asyncio.Event().wait()

    monkeypatch.setattr(served_model, "PATIENCE_S", 0.01)
    services.embedder.describe = never
    method, route = method_and_route
    answer = await client.request(method, route, files=parts(png()) if method == "POST" else None)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "loading" in answer.json()["detail"]


async def test_a_known_model_that_went_away_is_described_as_not_ready(client, services):
    before = (await client.get("/v1/describe")).json()
    services.embedder.fault = ModelUnavailable("its weights are gone")
    assert (await client.get("/v1/describe")).json() == before | {"ready": False}
    answer = await client.post(ROUTE, files=parts(png()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_a_busy_model_embeds_all_the_same(client, services, monkeypatch):
    await client.get("/v1/describe")

    async def never(model):
        await asyncio.Event().wait()

    monkeypatch.setattr(served_model, "PATIENCE_S", 0.01)
    services.embedder.describe = never
    assert (await client.get("/v1/describe")).json()["ready"] is True
    assert (await client.post(ROUTE, files=parts(png()))).json()["kept_indices"] == [0]


async def test_vectors_come_with_the_space_they_are_of(client, services):
    await client.post(ROUTE, files=parts(png()))
    services.embedder.model = FakeModel(space_key="another")
    assert (await client.post(ROUTE, files=parts(png()))).json()["space_key"] == "another"


async def test_a_full_service_says_when_to_come_back(client, services):
    services.embedder.gate = asyncio.Event()
    full = parts(*[png()] * services.policy.request_images)
    waiting = [asyncio.create_task(client.post(ROUTE, files=full)) for _ in range(2)]
    window = services.policy.max_replicas * services.policy.target_ongoing
    while services.embedder.n_calls < 2 * window:  # admitted, and as much of it under way as may be
        await asyncio.sleep(0)
    answer = await client.post(ROUTE, files=parts(png()))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (429, "saturated", "5")
    services.embedder.gate.set()
    assert [(await task).status_code for task in waiting] == [200, 200]


async def test_a_replica_out_of_reach_is_a_503_with_a_reason(client, services):
    await client.get("/v1/describe")

    async def embed(model, images):
        raise Unavailable("the embedder did not answer in time")

    services.embedder.embed_images = embed
    answer = await client.post(ROUTE, files=parts(png()))
    assert (answer.status_code, answer.json()["detail"]) == (503, "the embedder did not answer in time")


@pytest.mark.parametrize("method_and_route", [("GET", "/v1/describe"), ("POST", ROUTE)])
async def test_a_service_with_a_key_asks_for_it_before_the_body(services, method_and_route):
    async def unread():
        raise AssertionError("the body was read")
        yield b""

    method, route = method_and_route
    app = create_app(Settings(api_key="secret"), lambda: services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as client:
        answer = await client.request(method, route, content=unread() if method == "POST" else None)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        allowed = await client.get("/v1/describe", headers={"Authorization": "bearer secret"})
        assert allowed.status_code == 200


async def test_the_answer_is_the_one_the_document_promises(client, app):
    body = (await client.post(ROUTE, files=parts(png()))).json()
    schema = app.openapi()["components"]["schemas"]["Embeddings"]
    assert sorted(body) == sorted(schema["properties"]) == sorted(schema["required"])
    assert json.loads(json.dumps(body)) == body
