import asyncio
import base64
import json

import numpy as np
import pytest

from serve_app.api.guards import MIB
from serve_app.embedding import weights
from serve_app.errors import ModelUnavailable
from tests.fakes import FakeModel
from tests.unit.api import work
from tests.unit.api.conftest import png

ROUTE = "/v1/embeddings"
MODEL = "dinov2-base"


def uri(image, media_type="image/png"):
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


async def create(client, **fields):
    return await client.post(ROUTE, json={"model": MODEL, "input": uri(png())} | fields)


def assert_refused(answer, status, code, says):
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["code"] == code
    assert says in problem["detail"]
    assert problem["error"]["message"] == problem["detail"]
    assert problem["error"]["code"] == code
    assert problem["error"]["type"] == ("server_error" if status >= 500 else "invalid_request_error")


async def test_the_answer_has_openais_shape(client, services):
    body = (await create(client, input=[uri(png((9, 9, 9)))])).json()
    vector = body["data"][0].pop("embedding")
    assert body == {
        "object": "list",
        "model": "dinov2-base@fake-space",
        "data": [{"object": "embedding", "index": 0}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    assert np.array_equal(np.array(vector, np.float32), services.embedder.model.vector(png((9, 9, 9))))


@pytest.mark.parametrize("modality", [{}, {"modality": "image"}, {"modality": None}], ids=str)
@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}], ids=str)
@pytest.mark.parametrize("n_images", [1, 5])
async def test_images_come_back_as_vectors_in_their_order(client, services, n_images, encoding, modality):
    images = [png((i, i, 0)) for i in range(n_images)]
    body = (await create(client, input=[uri(image) for image in images], **encoding, **modality)).json()
    assert [item["index"] for item in body["data"]] == list(range(n_images))
    for item, image in zip(body["data"], images, strict=True):
        given = item["embedding"]
        if encoding.get("encoding_format") == "base64":
            given = np.frombuffer(base64.b64decode(given), "<f4")
        assert np.array_equal(np.array(given, np.float32), services.embedder.model.vector(image))


async def test_one_image_may_stand_without_a_list(client):
    assert (await create(client, input=uri(png()))).json()["data"][0]["index"] == 0


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/x-unknown", "application/octet-stream"])
async def test_a_wrong_media_type_does_not_matter(client, media_type):
    assert (await create(client, input=uri(png(), media_type))).status_code == 200


@pytest.mark.parametrize("name", [MODEL, weights.REPOSITORIES[MODEL], "dinov2-base@fake-space"])
async def test_the_default_model_answers_to_its_names(client, name):
    assert (await create(client, model=name)).json()["model"] == "dinov2-base@fake-space"


async def test_a_model_that_was_replaced_is_not_taken_for_the_one_before(client, services):
    await create(client)
    services.embedder.model = FakeModel(space_key="another")
    answer = await create(client, model="dinov2-base@fake-space")
    assert_refused(answer, 422, "unknown_model", "that is 'dinov2-base@another'")
    assert (await create(client, model="dinov2-base@another")).status_code == 200
    assert (await create(client)).json()["model"] == "dinov2-base@another"


async def test_the_model_is_asked_for_once_and_not_with_every_request(client, services):
    describe, n_asked = services.embedder.describe, 0

    async def counted(model):
        nonlocal n_asked
        n_asked += 1
        return await describe(model)

    services.embedder.describe = counted
    for _ in range(3):
        assert (await create(client)).status_code == 200
    assert n_asked == 1


@pytest.mark.parametrize("name", ["dinov2-small", "text-embedding-3-small", "dinov2-base@0123", "dinov2-base@"])
async def test_another_model_or_space_is_refused(client, services, name):
    assert_refused(await create(client, model=name), 422, "unknown_model", "that is 'dinov2-base@fake-space'")
    assert services.embedder.n_images == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"input": "a red car"}, "input[0]: text cannot be embedded"),
        ({"input": [uri(png()), "https://example.org/a.png"]}, "input[1]: URLs are not fetched here"),
        ({"input": []}, "at least one image"),
        ({"dimensions": 256}, "have 768 numbers and are not shortened"),
        ({"dimensions": 0}, "have 768 numbers"),
        ({"modality": "text"}, "modality"),
        ({"encoding_format": "float16"}, "encoding_format"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": None}, "input"),
        ({"stream": True}, "stream"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
async def test_what_cannot_be_had_is_refused_before_anything_is_embedded(client, services, fields, says):
    assert_refused(await create(client, **fields), 422, "invalid_request", says)
    assert services.embedder.n_images == 0


@pytest.fixture
def reading(services):
    """The default model takes text."""
    services.embedder.model = FakeModel(no_text="")
    return services.embedder.model


async def test_texts_and_images_may_be_mixed_and_keep_their_order(client, reading):
    inputs = ["a red car", uri(png()), "a dog"]
    body = (await create(client, input=inputs)).json()
    expected = [reading.vector(content) for content in (b"a red car", png(), b"a dog")]
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    for item, vector in zip(body["data"], expected, strict=True):
        assert np.array_equal(np.array(item["embedding"], np.float32), vector)
    assert "notices" not in body


async def test_a_text_that_was_cut_is_named(client, reading):
    body = (await create(client, input=[uri(png()), "short", "a long text of some words"])).json()
    assert body["notices"] == ["input[2] was cut to the model's length"]


async def test_infinitys_modality_says_what_the_inputs_are(client, reading):
    body = (await create(client, input="https://a.example/x", modality="text")).json()
    assert np.array_equal(np.array(body["data"][0]["embedding"], np.float32), reading.vector(b"https://a.example/x"))
    assert_refused(await create(client, input="a dog", modality="image"), 422, "invalid_request", "input[0]")
    assert_refused(await create(client, input="https://a.example/x"), 422, "invalid_request", "URLs are not fetched")


@pytest.mark.parametrize("text", ["", "  ", "x" * 10_001], ids=["empty", "blank", "long"])
async def test_a_text_that_is_no_text_is_refused_by_its_position(client, reading, text):
    assert_refused(await create(client, input=["a dog", text]), 422, "invalid_request", "input[1]")


async def test_a_datasets_model_may_be_asked_for_and_is_listed(client, services, dataset, monkeypatch):
    small = FakeModel(name="dinov2-small", dimension=384, space_key="small")
    default, services.embedder.model = services.embedder.model, small
    await client.post(f"/datasets/{dataset['id']}/embeddings/generate", json={"model_name": "dinov2-small"})
    await work.embed(services)
    models, embed = {MODEL: default, "dinov2-small": small}, services.embedder.embed_images

    async def describe(name):
        return models[name].card

    async def embed_images(name, images):
        services.embedder.model = models[name]
        return await embed(name, images)

    monkeypatch.setattr(services.embedder, "describe", describe)
    monkeypatch.setattr(services.embedder, "embed_images", embed_images)
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == [MODEL, "dinov2-small"]
    for name in ("dinov2-small", "facebook/dinov2-small", "dinov2-small@small"):
        body = (await create(client, model=name)).json()
        assert body["model"] == "dinov2-small@small"
        assert len(body["data"][0]["embedding"]) == 384
    assert_refused(await create(client, model="dinov2-small@other"), 422, "unknown_model", "dinov2-small@small")
    assert (await create(client)).json()["model"] == "dinov2-base@fake-space"


async def test_the_models_own_number_of_dimensions_may_be_asked_for(client):
    assert (await create(client, dimensions=768, user="me")).status_code == 200


async def test_an_image_that_cannot_be_decoded_fails_the_request_by_its_position(client):
    answer = await create(client, input=[uri(png()), uri(b"text")])
    assert_refused(answer, 422, "invalid_image", "input[1]: not an image of a known format (unidentified)")


async def test_more_images_than_a_request_may_hold_are_too_large(client, services):
    answer = await create(client, input=[uri(png())] * (services.policy.request_images + 1))
    assert_refused(answer, 413, "too_large", "at most 64 images")


async def test_more_bytes_than_a_request_may_hold_are_too_large(client):
    assert (await create(client, input=[uri(bytes(4 * MIB))])).status_code == 422  # an image of 4 MiB passes
    assert_refused(await create(client, input=[uri(bytes(12 * MIB))]), 413, "too_large", "16 MiB")


async def test_a_saturated_service_is_a_429_that_says_when_to_come_back(client, services):
    services.embedder.gate = asyncio.Event()
    full = [uri(png())] * services.policy.request_images
    waiting = [asyncio.create_task(create(client, input=full)) for _ in range(2)]
    window = services.policy.max_replicas * services.policy.target_ongoing
    while services.embedder.n_calls < 2 * window:  # admitted, and as much of it under way as may be
        await asyncio.sleep(0)
    answer = await create(client)
    assert_refused(answer, 429, "saturated", "try again later")
    assert answer.headers["retry-after"] == "2"
    services.embedder.gate.set()
    assert [(await task).status_code for task in waiting] == [200, 200]


async def test_a_model_that_is_away_is_a_503(client, services):
    services.embedder.fault = ModelUnavailable("no weights")
    answer = await create(client)
    assert_refused(answer, 503, "model_unavailable", "no weights")
    assert answer.headers["retry-after"] == "2"


async def test_errors_found_before_the_route_have_openais_shape_too(client):
    answer = await client.post(ROUTE, content=b"{", headers={"Content-Type": "application/json"})
    assert_refused(answer, 400, "malformed_json", "not JSON")


async def test_other_routes_have_no_error_object(client):
    assert "error" not in (await client.get("/jobs/none")).json()


async def test_the_answer_is_the_one_the_document_promises(client, app):
    body = (await create(client)).json()
    schemas = app.openapi()["components"]["schemas"]
    assert sorted(body) == sorted(schemas["EmbeddingList"]["required"] + ["object"])
    assert sorted(body["data"][0]) == sorted(schemas["Embedding"]["properties"])
    assert json.dumps(body)


@pytest.mark.parametrize(
    "tokens", [[1, 2], [[57668, 53901]], ["text", 1], [0] * 2000], ids=["flat", "nested", "mixed", "many"]
)
async def test_token_ids_are_refused_with_one_error_that_says_what_is_taken(client, tokens):
    answer = await create(client, input=tokens)
    assert_refused(answer, 422, "invalid_request", "only images are taken")
    assert len(answer.json()["errors"]) == 1


async def test_a_list_of_half_a_million_numbers_is_refused_unparsed(client, monkeypatch):
    """One error was built for each element: 5.8 s and 800 MiB for one MiB."""
    parsed = []
    monkeypatch.setattr(json, "loads", lambda *args, **kwargs: parsed.append(args))
    body = b'{"model": "m", "input": [' + b"0," * 500_000 + b"0]}"

    answer = await client.post(ROUTE, content=body, headers={"Content-Type": "application/json"})

    monkeypatch.undo()
    assert_refused(answer, 422, "invalid_request", "more than 5000 values")
    assert not parsed


async def test_many_unknown_keys_get_ten_errors_at_most(client):
    answer = await create(client, **{f"k{i}": i for i in range(1000)})
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 10
