"""Each family beside `AutoImageProcessor`, `AutoTokenizer` and `AutoModel`, with tiny checkpoints."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel

from serve_app.embedding import families, weights
from serve_app.embedding.checkpoint import preprocessing_of
from serve_app.embedding.model import ModelRequest
from serve_app.embedding.text import MAX_CHARACTERS
from serve_app.embedding.torch_model import TorchModel
from serve_app.errors import InvalidRequest, ModelUnavailable, NoTextTower, UnknownModel
from serve_app.images.decode import PREPROCESSING_VERSION, decode
from tests.tiny_models import make_tiny_checkpoint
from tests.unit.embedding.towers import (
    COARSE,
    EACH,
    LONG,
    MODELS,
    ODD,
    TEXTS,
    WITH_TEXT,
    cosines,
    file_of,
    load,
    pictures,
    pixels_of_transformers,
    random_pixels,
    text_vectors_of_transformers,
)
from tests.unit.processor import needs_precision


@torch.inference_mode()
def vectors_of_transformers(directory, name):
    network = AutoModel.from_pretrained(directory).eval()
    pixels = pixels_of_transformers(directory, [picture.convert("RGB") for picture in pictures()])
    if name in WITH_TEXT:
        return network.get_image_features(pixel_values=pixels).pooler_output.numpy()
    outputs = network(pixel_values=pixels)
    if name == "dinov3?pooling=mean":
        return outputs.last_hidden_state[:, 5:].mean(1).numpy()
    if name == "vit?pooling=mean":
        return outputs.last_hidden_state.mean(1).numpy()
    return (outputs.pooler_output if name.endswith("pooled") else outputs.last_hidden_state[:, 0]).numpy()


# Images


@pytest.mark.parametrize("name", MODELS)
def test_files_get_the_vectors_of_the_checkpoints_own_processor_and_auto_model(checkpoints, models, name):
    expected = vectors_of_transformers(checkpoints(name), name)
    model = models(name)
    vectors = model.vectors(np.stack([decode(file_of(picture), model.preprocessing) for picture in pictures()]))
    assert vectors.shape == (8, model.card.dimension)
    assert cosines(vectors, expected).min() > 0.9999
    assert cosines(expected, np.roll(expected, 1, 0)).min() < 0.99, "the tiny model must tell pictures apart"


@pytest.mark.parametrize("name", ["siglip", "clip", "vit?pooling=mean"])
def test_pixels_are_those_of_the_checkpoints_own_processor(checkpoints, name):
    processor = AutoImageProcessor.from_pretrained(checkpoints(name))
    preprocessing = preprocessing_of(checkpoints(name))
    for picture in pictures():
        image = picture.convert("RGB")
        expected = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        difference = decode(file_of(picture), preprocessing).astype(int) - expected.transpose(1, 2, 0).astype(int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", ["siglip", "siglip-1", "clip", "dinov3", "dinov3-convnext"])
def test_engines_make_the_same_vectors_and_share_a_space(checkpoints, models, name):
    directory = checkpoints(name)
    other = TorchModel.load(ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32"))
    pixels = random_pixels(other)
    assert other.card == models(name).card
    assert cosines(other.vectors(pixels), models(name).vectors(pixels)).min() > 0.99999
    if name in WITH_TEXT:
        texts = [*TEXTS, LONG]
        assert cosines(other.text().vectors(texts)[0], models(name).text().vectors(texts)[0]).min() > 0.99999


@pytest.mark.parametrize("precision", [pytest.param(name, marks=needs_precision(name)) for name in COARSE])
@pytest.mark.parametrize("name", EACH)
def test_coarser_precisions_stay_close_for_images_and_texts(checkpoints, models, name, precision):
    coarse = load(checkpoints(name), name=f"tiny{MODELS[name]}", precision=precision)
    assert coarse.card.space_key != models(name).card.space_key
    assert_close(coarse, models(name), COARSE[precision])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", EACH)
def test_the_precisions_of_gpus_stay_close_for_images_and_texts(checkpoints, models, name, precision):
    """PyTorch computes in them on any processor, so that what a GPU runs is tried without one."""
    directory = checkpoints(name)
    wanted = ModelRequest(directory, f"tiny{MODELS[name]}", preprocessing_of(directory), "cpu", precision)
    assert_close(TorchModel.load(wanted), models(name), COARSE["bf16"])


def assert_close(coarse, model, bound):
    pixels = random_pixels(coarse)
    assert cosines(coarse.vectors(pixels), model.vectors(pixels)).min() > bound
    assert coarse.card.no_text == model.card.no_text
    if not model.card.no_text:
        texts = [*TEXTS, LONG]
        assert cosines(coarse.text().vectors(texts)[0], model.text().vectors(texts)[0]).min() > bound


# Texts


@pytest.mark.parametrize("name", WITH_TEXT)
def test_texts_get_the_vectors_of_auto_tokenizer_and_the_text_tower(checkpoints, models, name):
    texts = [*TEXTS, LONG, *ODD]
    vectors, cut = models(name).text().vectors(texts)
    expected = text_vectors_of_transformers(checkpoints(name), name, texts)
    assert vectors.dtype == np.float32
    assert vectors.shape[1] == models(name).card.dimension
    assert cosines(vectors, expected).min() > 0.9999
    assert 4 in cut
    assert 0 not in cut


@pytest.mark.parametrize("name", WITH_TEXT)
def test_a_texts_vector_does_not_depend_on_the_others(models, name):
    encoder = models(name).text()
    many = [f"a cat {number}" for number in range(40)]
    together, _ = encoder.vectors([*many, LONG])
    alone = np.concatenate([encoder.vectors([text])[0] for text in many[::13]])
    np.testing.assert_allclose(together[:40:13], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "empty"), (" \n\t", "empty"), ("a\ud800", "surrogate"), ("x" * (MAX_CHARACTERS + 1), "characters")],
    ids=["nothing", "blanks", "lone surrogate", "too long"],
)
def test_a_text_that_is_no_text_is_refused(models, text, complaint):
    with pytest.raises(InvalidRequest, match=complaint):
        models("clip").text().vectors(["a cat", text])


@pytest.mark.parametrize("name", ["dinov3", "vit?pooling=mean"])
def test_a_model_without_a_text_tower_says_so(models, name):
    assert "images only" in models(name).card.no_text
    with pytest.raises(NoTextTower, match="takes no text"):
        models(name).text()


@pytest.mark.parametrize(
    ("lacks", "complaint"), [("all", "has no tokenizer"), ("part", "tokenizer does not load|cannot be reproduced")]
)
def test_images_work_where_the_tokenizer_is_missing_and_text_says_why(checkpoints, tmp_path, lacks, complaint):
    directory = shutil.copytree(checkpoints("siglip"), tmp_path / "tiny")
    for file in directory.glob("*token*"):
        if lacks == "all":
            file.unlink()
        else:
            file.write_text("{")
    model = load(directory)
    assert model.vectors(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 48)
    with pytest.raises(NoTextTower, match=complaint) as caught:
        model.text()
    assert str(tmp_path) not in str(caught.value)


def test_a_tokenizer_that_transformers_would_replace_by_another_is_refused(checkpoints, tmp_path):
    directory = shutil.copytree(checkpoints("siglip"), tmp_path / "tiny")
    file = directory / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "SiglipTokenizer"}))
    with pytest.raises(NoTextTower, match=r"SigLIP 1 needs the file spiece\.model .* images can be embedded"):
        load(directory).text()


# Spaces


def test_the_space_keys_of_dinov2_are_those_of_earlier_releases(tmp_path):
    directory = make_tiny_checkpoint(tmp_path / "tiny", hidden=48, heads=2, layers=1, image_px=56)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    parts = (weights.fingerprint(directory), "cls", (256, 224, mean, std), PREPROCESSING_VERSION, "fp32")
    card = ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32").card(48)
    assert card.space_key == hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def test_another_pooling_is_another_space(models):
    names = ("vit?pooling=mean", "vit?pooling=cls", "vit?pooling=pooled", "dinov3", "dinov3?pooling=mean")
    assert len({models(name).card.space_key for name in names}) == len(names)


@pytest.mark.parametrize("change", [{"resample": 3}, {"image_mean": [0.4] * 3}], ids=str)
def test_another_geometry_is_another_space(checkpoints, tmp_path, change):
    directory = shutil.copytree(checkpoints("siglip"), tmp_path / "tiny")
    keys = [ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32").card(48).space_key]
    file = directory / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    keys.append(ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32").card(48).space_key)
    assert len(set(keys)) == 2


# Names


def test_every_known_model_has_a_repository_a_dimension_and_a_licence():
    assert {"dinov2-base", "dinov3-base", "siglip2-base", "clip-base"} <= set(families.KNOWN)
    for name, model in families.KNOWN.items():
        assert weights.resolve(name) == name
        assert "/" in model.repository
        assert model.dimension > 0
        assert model.licence


def test_a_models_name_may_choose_the_pooling(checkpoints):
    directory = str(checkpoints("dinov3"))
    assert weights.resolve(f"{directory}?pooling=mean") == f"{directory}?pooling=mean"
    assert weights.resolve(f"{directory}?pooling=cls") == weights.resolve(directory) == directory
    assert weights.resolve("dinov2-base?pooling=cls") == "dinov2-base"
    assert weights.locate(f"{directory}?pooling=mean") == checkpoints("dinov3")


@pytest.mark.parametrize(
    ("family", "name", "complaint"),
    [
        ("vit", "", r"\?pooling=mean or .*\?pooling=cls"),
        ("vit", "?pooling=max", "no pooling 'max'"),
        ("clip", "?pooling=cls", r"no pooling 'cls': .*\?pooling=projected"),
        ("dinov3", "?pooling=", "no pooling ''"),
    ],
)
def test_a_pooling_that_is_missing_or_unknown_is_refused_with_the_choices(checkpoints, family, name, complaint):
    with pytest.raises(UnknownModel, match=complaint):
        weights.resolve(f"{checkpoints(family)}{name}")


def test_images_of_any_shape_are_refused_with_the_reason(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
    with pytest.raises(UnknownModel, match="NaFlex"):
        weights.resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"size": {"height": 80, "width": 80}}, "80 pixels, where the network takes 64"),
        ({"size": {"height": 64, "width": 48}}, "not square"),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "EfficientNetImageProcessor"),
        ({"do_pad": True}, "padding"),
        ({"do_center_crop": True}, "centre crop"),
        (None, r"has no preprocessor_config\.json"),
    ],
    ids=str,
)
def test_pixels_that_cannot_be_reproduced_are_refused_before_a_job(checkpoints, tmp_path, change, complaint):
    directory = shutil.copytree(checkpoints("siglip"), tmp_path / "tiny")
    file = directory / "preprocessor_config.json"
    if change is None:
        file.unlink()
    else:
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ModelUnavailable, match=complaint):
        load(directory)
    with pytest.raises(UnknownModel, match=complaint):
        weights.admit(str(directory))


def test_gated_weights_say_how_to_get_them_before_a_job(tmp_path, monkeypatch):
    monkeypatch.setattr(weights.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weights, "get_token", lambda: None)
    with pytest.raises(UnknownModel, match=r"accept the licence .*facebook/dinov3-vitb16.* HF_TOKEN"):
        weights.admit("dinov3-base")
    monkeypatch.setattr(weights, "get_token", lambda: "token")
    assert weights.admit("dinov3-base") == "dinov3-base"
