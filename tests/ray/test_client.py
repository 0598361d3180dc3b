"""Other Ray jobs: vectors without HTTP, equal to those that HTTP gives."""

import asyncio
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from PIL import Image

from deployments.client import EmbeddingClient
from serve_app.errors import InvalidImage, NoTextTower
from serve_app.records import Skip
from tests.ray.client import embed, export_table
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder, make_photograph
from tests.tiny_models import make_tiny_family

pytestmark = pytest.mark.ray


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether vectors are equal but for the order in which a batch is summed."""
    return a.dtype == b.dtype == np.float32 and bool(np.allclose(a, b, rtol=1e-4, atol=1e-5))


def test_a_second_driver_gets_through_ray_data_the_vectors_that_http_gives(service: Service, tmp_path: Path):
    root = make_folder(service.roots / "second-driver", n_images=20)
    dataset_id, end = embed(service.http, root)
    assert end["processed"] == 20
    table = export_table(service.http, dataset_id)
    by_http = dict(zip(table["sample_id"].to_pylist(), table["vector"].to_numpy(zero_copy_only=False), strict=True))
    (root / "broken.jpg").write_bytes(make_photograph(root.parent / "whole.jpg", 1).read_bytes()[:500])

    output = tmp_path / "vectors.npz"
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    repository = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.ray.second_driver", str(root), str(output)]
    subprocess.run(command, cwd=repository, env=environment, check=True)

    found = np.load(output)
    rows = dict(zip(found["names"].tolist(), zip(found["vectors"], found["refusals"], strict=True), strict=True))
    vector, refusal = rows.pop("broken.jpg")
    assert np.isnan(vector).all()
    assert refusal.startswith("truncated: ")
    assert sorted(rows) == sorted(by_http)
    for name, (vector, refusal) in rows.items():
        assert refusal == ""
        assert close(vector, by_http[name])
    assert close(found["direct"], np.stack([by_http[name] for name in found["direct_names"].tolist()]))


def test_bytes_paths_pictures_and_pixels_of_one_image_have_one_vector(service: Service):
    path = make_photograph(service.roots / "kinds" / "one.png", 5)
    picture = Image.open(path)
    upside_down = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.rotate(180).save(upside_down, "PNG", exif=exif)
    kinds = [path.read_bytes(), path, picture, np.asarray(picture), Image.open(upside_down)]
    vectors = EmbeddingClient().embed(kinds)
    assert vectors.shape == (5, 768)
    assert close(vectors, np.repeat(vectors[:1], 5, axis=0))


def test_an_image_that_cannot_be_decoded_is_named_or_answered_in_its_place(service: Service):
    good = make_photograph(service.roots / "refused" / "good.png", 6).read_bytes()
    client = EmbeddingClient(chunk=1)
    with pytest.raises(InvalidImage, match=r"^image 1: .*\(unidentified\) \(and 1 more images\)$"):
        client.embed([good, b"text", good, b""])
    first, text, second, empty = client.embed_each([good, b"text", good, b""])
    assert close(first, second)
    assert [text.reason, empty.reason] == ["unidentified", "empty"]
    assert isinstance(text, Skip)


def test_no_images_have_no_vectors_of_the_right_length(service: Service):
    assert EmbeddingClient().embed([]).shape == (0, 768)


def test_a_client_that_has_worked_pickles_and_works_in_an_event_loop(service: Service):
    image = make_photograph(service.roots / "pickled" / "one.png", 7)
    client = EmbeddingClient(window=2)
    before = client.embed([image])

    async def inside() -> tuple[np.ndarray, np.ndarray]:
        copy = pickle.loads(pickle.dumps(client))
        return await copy.embed_async([image]), copy.embed([image])

    awaited, called = asyncio.run(inside())
    assert close(awaited, before)
    assert close(called, before)


def test_words_of_a_further_model_are_the_same_by_ray_and_by_http(service: Service, tmp_path: Path):
    """The model is deployed by the job; then everybody may ask it."""
    model = str(make_tiny_family(tmp_path / "tiny-siglip", "siglip"))
    dataset_id, end = embed(service.http, make_folder(service.roots / "words", n_images=6), model_name=model)
    assert end["status"] == "complete", end
    texts = ["a dog on a beach", "a cat"]
    vectors = EmbeddingClient(model=model).embed_text(texts)
    assert vectors.shape == (2, 48)
    answer = service.http.post("/v1/embeddings", json={"model": "tiny-siglip", "input": texts}).json()
    assert close(vectors, np.array([item["embedding"] for item in answer["data"]], np.float32))
    assert [listed["id"] for listed in service.http.get("/v1/models").json()["data"]][-1] == "tiny-siglip"
    found = service.http.post(f"/datasets/{dataset_id}/search", json={"text": texts[0]}).json()
    assert len(found["items"]) == 6
    with pytest.raises(NoTextTower, match="images only"):
        EmbeddingClient().embed_text(texts)
