"""Over HTTP with real towers: a tiny checkpoint embeds a dataset, and words find what transformers says they find."""

from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from serve_app.api import create_app
from serve_app.embedding import weights
from serve_app.embedding.checkpoint import preprocessing_of
from serve_app.embedding.model import ModelRequest
from serve_app.embedding.torch_model import TorchModel
from serve_app.images.decode import decode
from serve_app.services import Embedded
from tests.fakes import FakeEmbedder
from tests.tiny_models import make_tiny_family
from tests.unit.api import work
from tests.unit.api.conftest import BASE_URL

WORDS = "A dog on a beach"


class Tower(FakeEmbedder):
    """Embeds with a checkpoint in this process, by PyTorch."""

    def __init__(self, name):
        directory = weights.locate(name)
        self.model = TorchModel.load(ModelRequest(directory, name, preprocessing_of(directory), "cpu", "fp32"))

    async def describe(self, model):
        return self.model.card

    async def embed_images(self, model, images):
        pixels = np.stack([decode(image, self.model.preprocessing) for image in images])
        return Embedded(self.model.card, list(self.model.vectors(pixels)))

    async def embed_texts(self, model, texts):
        vectors, cut = self.model.text().vectors(texts)
        return Embedded(self.model.card, list(vectors), tuple(cut))


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
