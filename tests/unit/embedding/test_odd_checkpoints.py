"""Checkpoints one step outside: other tokenizers, towers that were saved alone, files of old, code of their own."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPTextModel, CLIPVisionModel, SiglipVisionModel

from serve_app.embedding import weights
from serve_app.embedding.checkpoint import preprocessing_of
from serve_app.embedding.model import ModelRequest
from serve_app.embedding.torch_model import TorchModel
from serve_app.errors import ModelUnavailable, UnknownModel
from serve_app.images.decode import decode
from tests.unit.embedding.towers import LONG, TEXTS, cosines, file_of, load, pictures, text_vectors_of_transformers


def changed(directory, target, file, **values):
    """A copy of a checkpoint whose file of JSON has other values."""
    copy = shutil.copytree(directory, target)
    (copy / file).write_text(json.dumps(json.loads((copy / file).read_text()) | values))
    return copy


def saved_tokenizer(directory, target, **options):
    """A copy of a checkpoint with its tokenizer saved anew, as a user would who has changed it."""
    copy = shutil.copytree(directory, target)
    AutoTokenizer.from_pretrained(copy, **options).save_pretrained(copy)
    return copy


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("siglip", {"padding_side": "left"}),
        ("siglip", {"pad_token": "<unk>"}),
        ("siglip-mask", {"padding_side": "left"}),
        ("siglip-1", {"padding_side": "left", "do_lower_case": False}),
        ("siglip", {"model_max_length": 9}),
        ("siglip-1", {"model_max_length": 9}),
        ("siglip", {"truncation_side": "left"}),
    ],
    ids=str,
)
def test_a_tokenizer_with_other_habits_is_followed(checkpoints, tmp_path, name, options):
    directory = saved_tokenizer(checkpoints(name), tmp_path / "tiny", **options)
    texts = [*TEXTS, LONG]
    encoder = TorchModel.load(ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32")).text()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert getattr(tokenizer, next(iter(options))) == next(iter(options.values()))
    inputs = tokenizer(
        texts,
        padding="max_length",
        max_length=options.get("model_max_length", 16),
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(directory).eval().get_text_features(**inputs).pooler_output.numpy()
    assert cosines(encoder.vectors(texts)[0], expected).min() > 0.9999


@pytest.mark.parametrize("options", [{"padding_side": "left"}, {"pad_token": "dog</w>"}], ids=str)
def test_a_text_of_clip_has_its_vector_whatever_its_tokenizer_pads_with(checkpoints, models, tmp_path, options):
    """The tower of old configurations (end token 2) looks at the largest id, which such padding would be."""
    directory = saved_tokenizer(checkpoints("clip"), tmp_path / "tiny", **options)
    encoder = TorchModel.load(ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32")).text()
    together, _ = encoder.vectors([*TEXTS, LONG])
    alone = np.concatenate([encoder.vectors([text])[0] for text in TEXTS])
    np.testing.assert_allclose(together[: len(TEXTS)], alone, atol=1e-5)
    expected = text_vectors_of_transformers(checkpoints("clip"), "clip", TEXTS)
    assert cosines(alone, expected).min() > 0.9999


def test_a_left_truncation_of_siglip_1_is_refused_with_the_reason(checkpoints, tmp_path):
    directory = saved_tokenizer(checkpoints("siglip-1"), tmp_path / "tiny", truncation_side="left")
    model = TorchModel.load(ModelRequest(directory, "tiny", preprocessing_of(directory), "cpu", "fp32"))
    assert model.card.no_text == "its tokenizer cannot be reproduced without transformers"


@pytest.mark.parametrize(
    ("family", "tower", "pooling"),
    [("clip", CLIPVisionModel, "pooled"), ("siglip", SiglipVisionModel, "pooled"), ("clip", CLIPVisionModel, "cls")],
)
def test_a_tower_for_images_that_was_saved_alone_is_a_model(checkpoints, tmp_path, family, tower, pooling):
    network = tower.from_pretrained(checkpoints(family)).eval()
    network.save_pretrained(tmp_path / "tiny")
    shutil.copy(checkpoints(family) / "preprocessor_config.json", tmp_path / "tiny")
    name = weights.admit(f"{tmp_path / 'tiny'}?pooling={pooling}")
    preprocessing = preprocessing_of(tmp_path / "tiny")
    model = TorchModel.load(ModelRequest(tmp_path / "tiny", name, preprocessing, "cpu", "fp32"))
    processor = AutoImageProcessor.from_pretrained(checkpoints(family))
    images = [picture.convert("RGB") for picture in pictures()]
    with torch.inference_mode():
        outputs = network(**processor(images=images, return_tensors="pt"))
    expected = outputs.pooler_output if pooling == "pooled" else outputs.last_hidden_state[:, 0]
    vectors = model.vectors(np.stack([decode(file_of(picture), preprocessing) for picture in pictures()]))
    assert cosines(vectors, expected.numpy()).min() > 0.9999
    assert "images only" in model.card.no_text


def test_a_tower_for_texts_that_was_saved_alone_is_refused(checkpoints, tmp_path):
    CLIPTextModel.from_pretrained(checkpoints("clip")).save_pretrained(tmp_path / "tiny")
    with pytest.raises(UnknownModel, match=r"has no preprocessor_config\.json"):
        weights.admit(f"{tmp_path / 'tiny'}?pooling=pooled")


OLD_VIT = {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 64}
"""The file of google/vit-base-patch16-224 from memory: it names no class."""


def test_a_processor_without_a_name_is_the_one_that_transformers_takes_for_the_model(checkpoints, tmp_path):
    directory = shutil.copytree(checkpoints("vit"), tmp_path / "tiny")
    (directory / "preprocessor_config.json").write_text(json.dumps(OLD_VIT))
    preprocessing = preprocessing_of(directory)
    assert preprocessing == preprocessing_of(checkpoints("vit"))
    processor = AutoImageProcessor.from_pretrained(directory)
    for picture in pictures():
        image = picture.convert("RGB")
        expected = processor(image, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        difference = decode(file_of(picture), preprocessing).astype(int) - expected.transpose(1, 2, 0).astype(int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("model_type", "processor", "complaint"),
    [
        ("convnext", {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, "names no class"),
        ("convnext", {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}, "ConvNextImageProcessor"),
        ("my_own", {"image_processor_type": "MyOwnImageProcessor", "size": 224}, "MyOwnImageProcessor"),
    ],
    ids=["convnext without a name", "convnext of old", "code of its own"],
)
def test_processors_that_are_not_known_are_refused_before_a_job(tmp_path, model_type, processor, complaint):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(UnknownModel, match=complaint):
        weights.admit(f"{tmp_path}?pooling=mean")


@pytest.mark.parametrize("brings", ["network", "tokenizer"])
def test_code_that_a_checkpoint_brings_is_never_run(checkpoints, tmp_path, brings):
    proof = tmp_path / "ran"
    own = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    file, values = {
        "network": ("config.json", {"model_type": "my_own", "architectures": ["Dinov2Model"]}),
        "tokenizer": ("tokenizer_config.json", {"tokenizer_class": "Own"}),
    }[brings]
    directory = changed(checkpoints("siglip"), tmp_path / "tiny", file, auto_map=own, **values)
    (directory / "own.py").write_text(f"open({str(proof)!r}, 'w')\nclass Own: ...\n")
    if brings == "network":
        with pytest.raises(ModelUnavailable, match="does not load"):
            load(directory, name="tiny?pooling=mean")
    else:
        load(directory)
    assert not proof.exists()
