"""Everybody's clients beside a service whose model takes text: LightlyStudio's, OpenAI's, infinity's and our own."""

import base64
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from constellate import Constellate, Refused
from serve_app.config import Settings
from tests.live_service import LiveService
from tests.ports import free_port
from tests.tiny_models import make_tiny_family
from tests.unit.api.tower import Tower

WORDS = "a dog on a beach"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service with a tiny SigLIP as its default model, and the folder `photos` of six images."""
    base = tmp_path_factory.mktemp("words")
    checkpoint = make_tiny_family(base / "tiny-siglip", "siglip")
    (base / "photos").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (90, 130 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(base / "photos" / f"{number}.png")
    settings = Settings(port=free_port(), data_dir=base / "state", dataset_roots=(base,), model=str(checkpoint))
    live = LiveService(settings)
    live.embedder = Tower(str(checkpoint))
    live.start()
    yield live
    live.stop()


@pytest.fixture
def photos(service):
    return service.settings.dataset_roots[0] / "photos"


@pytest.fixture(scope="module")
def client(service):
    with openai.OpenAI(base_url=f"{service.settings.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def uri(file):
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def text_vectors(service, *texts):
    return service.embedder.model.text().vectors(texts)[0]


def test_lightly_studios_conformance_passes_with_text(service):
    command = [Path(sys.executable).parent / "lightly-studio-serve", "conformance", service.settings.url]
    for _ in range(5):  # the tool gives an answer five seconds: a busy machine may need another try
        check = subprocess.run(command, capture_output=True, text=True)
        if check.returncode == 0:
            break
    assert check.returncode == 0, check.stdout
    passed = [line.split()[0] for line in check.stdout.splitlines() if line.split()[1:2] == ["passed"]]
    assert {"image_bytes", "text"} <= set(passed), check.stdout


def test_lightly_studio_gets_the_vectors_of_texts_in_their_order(service):
    body = httpx.post(f"{service.settings.url}/v1/embed/texts", json={"texts": [WORDS, "a cat"]}, timeout=60).json()
    assert body["kept_indices"] == [0, 1]
    np.testing.assert_allclose(body["embeddings"], text_vectors(service, WORDS, "a cat"), atol=1e-6)


def test_openais_package_embeds_texts_and_images_in_one_space(service, client, photos):
    inputs = [WORDS, uri(photos / "0.png"), "a cat"]
    answer = client.embeddings.create(model="tiny-siglip", input=inputs, dimensions=48)
    vectors = np.array([item.embedding for item in answer.data], np.float32)
    np.testing.assert_allclose(vectors[[0, 2]], text_vectors(service, WORDS, "a cat"), atol=1e-6)
    with Constellate(service.settings.url) as own:
        dataset = own.embed_folder(photos, name="photos").id
        score = {n["file_name"]: n["score"] for n in own.search(dataset, text=WORDS, limit=6)}["0.png"]
    assert vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1]) == pytest.approx(
        score, abs=1e-4
    )


def test_openais_package_lists_the_model_and_is_told_of_dimensions(client):
    assert [model.id for model in client.models.list()] == ["tiny-siglip"]
    with pytest.raises(openai.UnprocessableEntityError, match="have 48 numbers and are not shortened"):
        client.embeddings.create(model="tiny-siglip", input=WORDS, dimensions=16)


def test_a_text_that_was_cut_is_named_to_openais_package(client):
    answer = client.embeddings.create(model="tiny-siglip", input=["a cat", "a cat and a dog " * 30])
    assert answer.model_extra["notices"] == ["input[1] was cut to the model's length"]


@pytest.mark.parametrize(("modality", "given"), [("text", "https://a.example/x"), (None, "a red car")])
def test_infinitys_modality_says_what_an_input_is(service, client, modality, given):
    extra = {} if modality is None else {"extra_body": {"modality": modality}}
    answer = client.embeddings.create(model="tiny-siglip", input=given, encoding_format="float", **extra)
    np.testing.assert_allclose(answer.data[0].embedding, text_vectors(service, given)[0], atol=1e-6)
    with pytest.raises(openai.UnprocessableEntityError, match=r"input\[0\]"):
        client.embeddings.create(model="tiny-siglip", input=given, extra_body={"modality": "image"})


def test_our_client_asks_by_sample_by_image_and_by_words(service, photos):
    with Constellate(service.settings.url) as own:
        dataset = own.embed_folder(photos, name="photos").id
        by_image = own.search(dataset, photos / "3.png", limit=6)
        assert (by_image[0]["file_name"], round(by_image[0]["score"], 4)) == ("3.png", 1.0)
        by_sample = own.similar(dataset, by_image[0]["sample_id"], limit=5)
        assert [n["file_name"] for n in by_sample] == [n["file_name"] for n in by_image[1:]]
        by_words = own.search(dataset, text=WORDS, limit=6)
        assert sorted(n["file_name"] for n in by_words) == [f"{number}.png" for number in range(6)]
        assert own.search(dataset, text="a cat and a dog " * 30, limit=1).notices
        labelled = own.label(dataset, ["a dog", "a cat"], templates=["{}"], column="animal")
        for phrase, count in labelled.items():
            assert len(list(own.samples(dataset, where=f"animal = '{phrase}'"))) == count
        with pytest.raises(Refused, match="empty"):
            own.search(dataset, text=" ", limit=1)
