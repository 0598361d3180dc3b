"""What only published weights can show: skipped, by name, where the Hugging Face cache does not have them."""

import numpy as np
import pytest
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from demo.photographs import write_tiles
from serve_app.embedding import families, loading, weights
from serve_app.images.decode import decode
from tests.converted_models import CACHE_DIR

NAMES = [name for name, model in families.KNOWN.items() if not model.gated and families.of_known(name).text]


def cached(name):
    """The folder of a model's weights on this machine."""
    try:
        return snapshot_download(weights.REPOSITORIES[name], allow_patterns=weights.FILES, local_files_only=True)
    except OSError:
        pytest.skip(f"the weights of {name} ({weights.REPOSITORIES[name]}) are not on this machine")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return sorted(write_tiles(tmp_path_factory.mktemp("tiles")).rglob("*-11.png"))


@pytest.mark.weights
@pytest.mark.parametrize("name", NAMES)
def test_words_find_photographs_as_they_do_with_transformers(name, request):
    directory = cached(name)
    files = request.getfixturevalue("tiles")
    words = [f"a photo of a {file.parent.name}" for file in files]
    model = loading.load(weights.locate(name), name=name, cache_dir=CACHE_DIR, device="cpu", threads=1)
    assert model.card.dimension == families.KNOWN[name].dimension
    images = model.vectors(np.stack([decode(file.read_bytes(), model.preprocessing) for file in files]))
    network, tokenizer = AutoModel.from_pretrained(directory).eval(), AutoTokenizer.from_pretrained(directory)
    pictures = [Image.open(file).convert("RGB") for file in files]
    pixels = AutoImageProcessor.from_pretrained(directory)(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = network.get_image_features(pixel_values=pixels).pooler_output.numpy()
    assert cosines(images, expected).min() > 0.9999
    if model.card.no_text:
        pytest.skip(f"{name} embeds images only: {model.card.no_text}")
    tokens = tokenizer(words, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = network.get_text_features(**tokens).pooler_output.numpy()
    assert cosines(model.text().vectors(words)[0], expected).min() > 0.9999


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
