"""What only published weights can show: one line for each, skipped by name where the Hugging Face cache lacks them."""

import numpy as np
import pytest
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from demo.photographs import write_tiles
from serve_app.embedding import families, loading, weights
from serve_app.images.decode import decode
from tests.converted_models import CACHE_DIR
from tests.unit.embedding.towers import cosines, pixels_of_transformers


def cached(name):
    """The folder of a model's weights, if this machine has them."""
    known = families.KNOWN[name]
    try:
        snapshot_download(known.repository, allow_patterns=weights.FILES, local_files_only=True)
    except OSError:
        gate = f"; gated, {known.licence}" if known.gated else ""
        pytest.skip(f"the weights of {name} ({known.repository}{gate}) are not on this machine")
    return weights.locate(name)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return sorted(write_tiles(tmp_path_factory.mktemp("tiles")).rglob("*-11.png"))


@pytest.mark.weights
@pytest.mark.parametrize("name", families.KNOWN)
def test_published_weights_give_the_vectors_of_transformers(name, request):
    directory = cached(name)
    files = request.getfixturevalue("tiles")
    model = loading.load(directory, name=name, cache_dir=CACHE_DIR, device="cpu", threads=1)
    assert model.card.dimension == families.KNOWN[name].dimension
    images = model.vectors(np.stack([decode(file.read_bytes(), model.preprocessing) for file in files]))
    network = AutoModel.from_pretrained(directory).eval()
    pixels = pixels_of_transformers(directory, [Image.open(file).convert("RGB") for file in files])
    with torch.inference_mode():
        expected = next(iter(families.of_known(name).poolings.values()))(network, pixels).numpy()
    assert cosines(images, expected).min() > 0.9999
    if families.of_known(name).text is None:
        return
    words = [f"a photo of a {file.parent.name}" for file in files]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokens = tokenizer(words, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = network.get_text_features(**tokens).pooler_output.numpy()
    assert cosines(model.text().vectors(words)[0], expected).min() > 0.9999


def test_every_family_has_published_weights_among_the_lines_above():
    named = {families.of_known(name).name for name in families.KNOWN}
    assert named == {family.name for family in families.FAMILIES}
