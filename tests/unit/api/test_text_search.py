"""Over HTTP with real towers: a tiny checkpoint embeds a dataset, and words find what transformers says they find."""

import json
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from serve_app.api import create_app
from tests.fakes import FakeModel
from tests.tiny_models import make_tiny_family
from tests.unit.api import work
from tests.unit.api.conftest import BASE_URL
from tests.unit.api.tower import Tower

WORDS = "A dog on a beach"


@torch.inference_mode()
def expected_scores(directory, files):
    """The cosine of the words and each file, as a user of transformers computes it."""
    tokenizer, network = AutoTokenizer.from_pretrained(directory), AutoModel.from_pretrained(directory).eval()
    inputs = tokenizer([WORDS], padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    words = network.get_text_features(**inputs).pooler_output
    processor = AutoImageProcessor.from_pretrained(directory)
    pictures = [Image.open(file).convert("RGB") for file in files]
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    images = network.get_image_features(pixel_values=pixels).pooler_output
    return torch.cosine_similarity(words, images).numpy()


async def test_words_find_the_images_that_transformers_finds(tmp_path, root, services):
    checkpoint = make_tiny_family(tmp_path / "tiny", "siglip")
    (root / "flowers" / "tulip" / "broken.png").unlink()
    for place, file in enumerate(sorted((root / "flowers").rglob("*.png"))):
        pixels = np.random.default_rng(place).integers(0, 256, (90 + place, 130, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((300, 200 + place)).save(file)
    services = replace(services, embedder=Tower(str(checkpoint)))
    transport = httpx.ASGITransport(create_app(services.settings, lambda: services))
    async with httpx.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        flowers = {"name": "flowers", "root": str(root / "flowers")}
        dataset = (await client.post("/datasets", json=flowers)).json()["id"]
        begun = await client.post(f"/datasets/{dataset}/embeddings/generate", json={"model_name": str(checkpoint)})
        assert begun.status_code == 202, begun.text
        await work.embed(services)
        found = (await client.post(f"/datasets/{dataset}/search", json={"text": WORDS})).json()["items"]
        labelled = await client.post(f"/datasets/{dataset}/labels", json={"phrases": ["a cat", "a dog"]})
    scores = expected_scores(checkpoint, [root / "flowers" / item["file_name"] for item in found])
    assert len(found) == labelled.json()["samples"] == 4
    assert [item["score"] for item in found] == pytest.approx(scores, abs=1e-4)
    assert np.ptp(scores) > 1e-3, "the tiny model must tell the images apart for this test to mean anything"


async def test_json_to_search_is_checked_as_all_json_is(client, embedded):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await client.post(
        f"/datasets/{embedded['id']}/search", content=b'{"text": "a", "text": "b"}', headers=headers
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


TOO_LONG = {"text": "x" * 10_000_000}


@pytest.mark.parametrize(
    "body", [{"text": ""}, {"text": " \n"}, {"text": "a\ud800"}, TOO_LONG, {}, {"text": 3}], ids=lambda b: repr(b)[:20]
)
@pytest.mark.parametrize("route", ["search", "/v1/embeddings", "labels"])
async def test_what_is_no_text_is_refused_on_every_route(client, services, embedded, route, body):
    services.embedder.model = FakeModel(no_text="")
    if route == "search":
        answer = await post(client, f"/datasets/{embedded['id']}/search", body)
    elif route == "labels":
        phrases = ["a cat", body.get("text")]
        answer = await post(client, f"/datasets/{embedded['id']}/labels", {"phrases": phrases})
    else:
        answer = await post(client, route, {"model": "dinov2-base", "input": body.get("text", {}), "modality": "text"})
    expected = 413 if route == "labels" and body is TOO_LONG else 422  # this route takes a MiB
    assert (answer.status_code, answer.headers["content-type"]) == (expected, "application/problem+json")
    assert len(answer.content) < 2_000, "the answer must not repeat what was sent"


async def post(client, path, body):
    """Send JSON that may hold a lone surrogate, as its escape."""
    content = json.dumps(body)
    return await client.post(path, content=content, headers={"Content-Type": "application/json"})
