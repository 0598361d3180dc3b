import dataclasses
import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from serve_app.embedding import int8, loading
from serve_app.embedding.loading import precisions
from serve_app.embedding.model import ModelRequest
from serve_app.embedding.torch_model import TorchModel
from serve_app.errors import ModelUnavailable
from serve_app.images.decode import Preprocessing, decode
from tests.converted_models import CACHE_DIR
from tests.tiny_models import make_tiny_checkpoint
from tests.unit.processor import needs_precision

torch.set_num_threads(1)

SMALL = {"hidden": 96, "heads": 3, "layers": 2, "image_px": 112, "resize_px": 64, "crop_px": 56}

VARIANTS = {
    "plain": {},
    "registers": {"registers": True},
    "SwiGLU": {"swiglu": True},
    "one block": {"layers": 1},
    "positions of the crop's size": {"image_px": 56},
    "crop that is no multiple of the patch": {"crop_px": 60},
}


@pytest.fixture(scope="module")
def published_shape(tmp_path_factory):
    """A checkpoint with the resolutions of the published models: 518 pixels of positions, crops of 224."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("published") / "tiny", hidden=384, heads=6, layers=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("small") / "tiny", **SMALL)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load(checkpoint, name="tiny")


def load(directory, **options):
    return loading.load(directory, cache_dir=CACHE_DIR, threads=1, **{"device": "cpu"} | options)


def load_with_torch(directory):
    return TorchModel.load(ModelRequest(directory, "tiny", Preprocessing.from_checkpoint(directory), "cpu", "fp32"))


def random_pixels(n_images, side_px=56, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n_images, side_px, side_px, 3), dtype=np.uint8)


def vectors_of_transformers(directory, images):
    """CLS of `last_hidden_state` for PIL images, or for pixels that are already cropped."""
    processor = AutoImageProcessor.from_pretrained(directory)
    ready = {"do_resize": False, "do_center_crop": False} if isinstance(images, np.ndarray) else {}
    pixel_values = processor(images=list(images), return_tensors="pt", **ready)["pixel_values"]
    with torch.inference_mode():
        return AutoModel.from_pretrained(directory).eval()(pixel_values).last_hidden_state[:, 0].numpy()


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


# Parity with transformers


def _pictures():
    rng = np.random.default_rng(1)
    for width, height in [(300, 200), (200, 300), (224, 224), (517, 389), (40, 400), (30, 20), (1, 1)]:
        coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
        yield Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    yield from (Image.fromarray(rng.integers(0, 256, (90, 130, 3), dtype=np.uint8)).convert(m) for m in ("L", "CMYK"))


def test_files_get_the_vectors_of_auto_processor_and_auto_model(published_shape):
    pictures = list(_pictures())
    expected = vectors_of_transformers(published_shape, [picture.convert("RGB") for picture in pictures])
    model = load(published_shape, name="tiny")
    vectors = model.vectors(np.stack([decode(_file(picture), model.preprocessing) for picture in pictures]))
    assert cosines(vectors, expected).min() > 0.9999
    between_images = cosines(expected, np.roll(expected, 1, 0))
    assert between_images.max() < 0.99, "the tiny model must tell the pictures apart for this test to mean anything"


def _file(picture):
    file = io.BytesIO()
    picture.save(file, "TIFF")
    return file.getvalue()


def test_pixels_are_those_of_auto_processor(published_shape):
    processor = AutoImageProcessor.from_pretrained(published_shape)
    preprocessing = Preprocessing.from_checkpoint(published_shape)
    for picture in _pictures():
        expected = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        difference = decode(_file(picture), preprocessing).astype(int) - expected.transpose(1, 2, 0).astype(int)
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_gets_the_vectors_of_auto_model(tmp_path, variant):
    directory = make_tiny_checkpoint(tmp_path / "tiny", **SMALL | VARIANTS[variant])
    model = load(directory, name="tiny")
    pixels = random_pixels(5, model.preprocessing.crop_px)
    np.testing.assert_allclose(model.vectors(pixels), vectors_of_transformers(directory, pixels), atol=2e-5)


# embed


def test_vectors_are_float32_rows_in_the_order_of_the_images(model):
    pixels = random_pixels(6)
    vectors = model.vectors(pixels)
    assert vectors.shape == (6, model.card.dimension) == (6, 96)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(model.vectors(pixels[::-1]), vectors[::-1], atol=1e-5)


def test_vectors_are_not_normalised(model):
    assert np.abs(np.linalg.norm(model.vectors(random_pixels(3)), axis=1) - 1).min() > 0.1


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 100])
def test_a_vector_does_not_depend_on_the_batch(checkpoint, model, micro_batch):
    pixels = random_pixels(9)
    alone = np.concatenate([model.vectors(image[None]) for image in pixels])
    other = load(checkpoint, name="tiny")
    other.micro_batch = micro_batch
    np.testing.assert_allclose(other.vectors(pixels), alone, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 56, 56, 3), (0, 0, 0, 3)], ids=str)
def test_no_images_give_no_vectors(model, shape):
    vectors = model.vectors(np.empty(shape, np.uint8))
    assert vectors.shape == (0, 96)
    assert vectors.dtype == np.float32


def test_pixels_may_be_read_only_or_strided(model, recwarn):
    pixels = random_pixels(4)
    expected = model.vectors(pixels[::2])
    frozen = pixels[::2].copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(model.vectors(frozen), expected)
    assert not recwarn.list


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 56, 56), np.uint8),
        np.zeros((2, 57, 57, 3), np.uint8),
        np.zeros((56, 56, 3), np.uint8),
        np.zeros((2, 56, 56, 3), np.float32),
    ],
    ids=["channels first", "another size", "one image", "floats"],
)
def test_other_shapes_and_types_are_refused(model, images):
    with pytest.raises(ValueError, match=r"\(B, 56, 56, 3\) uint8"):
        model.vectors(images)


def test_threads_may_share_a_model(model):
    pixels = random_pixels(32)
    with ThreadPoolExecutor(8) as threads:
        parts = list(threads.map(model.vectors, np.split(pixels, 16)))
    np.testing.assert_allclose(np.concatenate(parts), model.vectors(pixels), atol=1e-5)


# Precision and device


def test_a_cpu_computes_in_fp32_unless_told_otherwise(model):
    assert (model.card.device, model.card.precision) == ("cpu", "fp32")


@pytest.mark.parametrize(
    ("precision", "at_least"),
    [
        pytest.param("bf16", 0.999, marks=needs_precision("bf16")),
        pytest.param("int8", 0.99, marks=needs_precision("int8")),
    ],
)
def test_coarser_precisions_stay_close(checkpoint, model, precision, at_least):
    pixels = random_pixels(8)
    coarse = load(checkpoint, name="tiny", precision=precision)
    vectors = coarse.vectors(pixels)
    assert vectors.dtype == np.float32
    assert at_least < cosines(vectors, model.vectors(pixels)).min() < 1 - 1e-6
    assert coarse.card.precision == precision


@needs_precision("int8")
def test_int8_vectors_do_not_depend_on_their_neighbours(checkpoint):
    model = load(checkpoint, name="tiny", precision="int8")
    pixels, darker = random_pixels(4), random_pixels(4)
    darker[1:] //= 8
    np.testing.assert_array_equal(model.vectors(darker)[:1], model.vectors(pixels)[:1])


@pytest.mark.parametrize(
    ("device", "precision", "complaint"),
    [
        ("cpu", "fp16", "CPU cannot compute in fp16"),
        ("cuda", "int8", "cuda cannot .* fp32, bf16, fp16 or auto"),
        ("mps", "int8", "mps cannot .* fp32, bf16, fp16 or auto"),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(checkpoint, monkeypatch, device, precision, complaint):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ModelUnavailable, match=complaint):
        load(checkpoint, name="tiny", device=device, precision=precision)


@pytest.mark.parametrize(("lacks", "usable"), [("bf16", "fp32, int8 or auto"), ("int8", "fp32, bf16 or auto")])
def test_a_precision_that_the_processor_lacks_is_refused_with_those_it_has(checkpoint, monkeypatch, lacks, usable):
    """bf16 ended the replica of a processor without AVX-512 with an error of oneDNN's."""
    capabilities = {"FP32", "BF16", "INT8"} - {lacks.upper()}
    monkeypatch.setattr("serve_app.embedding.openvino_model.processor_capabilities", lambda: capabilities)
    monkeypatch.setattr("serve_app.embedding.openvino_model._compiles_a_product_in", lambda precision: True)
    monkeypatch.setattr("serve_app.embedding.int8.is_computed", lambda: True)
    with pytest.raises(ModelUnavailable, match=f"CPU cannot compute in {lacks}; .* {usable}"):
        load(checkpoint, name="tiny", precision=lacks)


def test_a_precision_that_is_named_but_does_not_compile_is_refused(checkpoint, monkeypatch):
    """Instructions may be taken away by ONEDNN_MAX_CPU_ISA, and OpenVINO's capabilities still name what they did."""
    monkeypatch.setattr("serve_app.embedding.openvino_model.processor_capabilities", lambda: {"FP32", "BF16"})
    monkeypatch.setattr("serve_app.embedding.openvino_model._compiles_a_product_in", lambda precision: False)
    with pytest.raises(ModelUnavailable, match=r"CPU cannot compute in bf16; .* fp32"):
        load(checkpoint, name="tiny", precision="bf16")


@pytest.mark.parametrize("product", ["exact", "none"])
def test_int8_is_refused_where_the_processor_does_not_multiply_in_it(checkpoint, monkeypatch, product):
    """Without VNNI, OpenVINO computes in fp32, no faster; where ONEDNN_MAX_CPU_ISA takes VNNI away, it fails."""
    options = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0} if product == "exact" else {"NO_SUCH_OPTION": 1}
    monkeypatch.setattr(int8, "OPTIONS", {"INFERENCE_PRECISION_HINT": "f32"} | options)
    monkeypatch.setattr(int8, "is_computed", int8.is_computed.__wrapped__)
    with pytest.raises(ModelUnavailable, match=r"CPU cannot compute in int8; .* fp32"):
        load(checkpoint, name="tiny", precision="int8")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(checkpoint, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelUnavailable, match=f"device {device} is not available"):
        load(checkpoint, name="tiny", device=device)


def _limit_memory(model, monkeypatch, most_images):
    forward, sizes = model._forward, []

    def forward_within_memory(images):
        sizes.append(len(images))
        if len(images) > most_images:
            raise torch.OutOfMemoryError
        return forward(images)

    monkeypatch.setattr(model, "_forward", forward_within_memory)
    return sizes


def test_a_batch_that_does_not_fit_the_gpu_is_halved(checkpoint, monkeypatch):
    model = load_with_torch(checkpoint)
    pixels = random_pixels(7)
    expected = model.vectors(pixels)
    sizes = _limit_memory(model, monkeypatch, most_images=2)
    np.testing.assert_allclose(model.vectors(pixels), expected, atol=1e-5)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_an_image_that_does_not_fit_the_gpu_makes_the_model_unavailable(checkpoint, monkeypatch):
    model = load_with_torch(checkpoint)
    _limit_memory(model, monkeypatch, most_images=0)
    with pytest.raises(ModelUnavailable, match="no memory"):
        model.vectors(random_pixels(2))


# The space key


def test_the_card_describes_the_model(checkpoint):
    card = load(checkpoint, name="my tiny model").card
    assert (card.name, card.dimension) == ("my tiny model", 96)
    assert pickle.loads(pickle.dumps(card)) == card


def test_engines_make_the_same_vectors_in_fp32_and_share_a_space(checkpoint, model):
    other = load_with_torch(checkpoint)
    pixels = random_pixels(8)
    assert other.card == dataclasses.replace(model.card, name=other.card.name)
    assert cosines(model.vectors(pixels), other.vectors(pixels)).min() >= 0.99999


@pytest.mark.parametrize(("precision", "shared"), [("fp32", True), ("bf16", False)])
def test_a_cpu_and_a_gpu_share_the_space_of_fp32_and_not_that_of_bf16(checkpoint, precision, shared):
    pixels = Preprocessing.from_checkpoint(checkpoint)
    on_cpu, on_gpu = (
        ModelRequest(checkpoint, "tiny", pixels, device, precision).card(96).space_key for device in ("cpu", "cuda")
    )
    assert (on_cpu == on_gpu) is shared


def test_equal_checkpoints_share_a_space_whatever_their_names(tmp_path, model):
    twin = make_tiny_checkpoint(tmp_path / "twin", **SMALL)
    assert load(twin, name="twin").card.space_key == model.card.space_key


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"registers": True}, {"crop_px": 42}, {"resize_px": 72}],
    ids=str,
)
def test_another_checkpoint_or_resolution_is_another_space(tmp_path, model, change):
    other = make_tiny_checkpoint(tmp_path / "other", **SMALL | change)
    assert load(other, name="tiny").card.space_key != model.card.space_key


def test_another_precision_or_version_of_preprocessing_is_another_space(checkpoint, monkeypatch):
    keys = [load(checkpoint, name="tiny", precision=p).card.space_key for p in precisions("cpu")]
    monkeypatch.setattr("serve_app.embedding.model.PREPROCESSING_VERSION", 10**6)
    keys.append(load(checkpoint, name="tiny").card.space_key)
    assert len(set(keys)) == len(keys) >= 2


# Damaged checkpoints


def _edit_tensors(directory, edit):
    file = directory / "model.safetensors"
    tensors = safetensors.torch.load(file.read_bytes())
    edit(tensors)
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


def _lose_a_tensor(directory):
    _edit_tensors(directory, lambda tensors: tensors.pop("encoder.layer.1.mlp.fc1.weight"))


def _reshape_a_tensor(directory):
    _edit_tensors(directory, lambda tensors: tensors.update({"layernorm.bias": torch.zeros(5)}))


def _cut_the_weights(directory):
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _scribble(directory):
    (directory / "model.safetensors").write_bytes(b"no tensors here")


def _damage_the_configuration(directory):
    (directory / "config.json").write_text('{"model_type": "dinov2", "hidden_size": "many"}')


@pytest.mark.parametrize(
    "damage", [_lose_a_tensor, _reshape_a_tensor, _cut_the_weights, _scribble, _damage_the_configuration]
)
def test_a_damaged_checkpoint_is_unavailable_and_never_half_random(tmp_path, damage):
    directory = make_tiny_checkpoint(tmp_path / "tiny", **SMALL)
    damage(directory)
    with pytest.raises(ModelUnavailable, match="tiny") as caught:
        load(directory, name="tiny")
    assert str(tmp_path) not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).detail == caught.value.detail


def test_a_checkpoint_may_lack_what_only_training_needs(tmp_path, model):
    directory = make_tiny_checkpoint(tmp_path / "tiny", **SMALL)
    _edit_tensors(directory, lambda tensors: tensors.pop("embeddings.mask_token"))
    lean = load(directory, name="tiny")
    np.testing.assert_array_equal(lean.vectors(random_pixels(2)), model.vectors(random_pixels(2)))


def test_pickled_weights_are_not_loaded(tmp_path):
    directory = make_tiny_checkpoint(tmp_path / "tiny", **SMALL)
    tensors = safetensors.torch.load((directory / "model.safetensors").read_bytes())
    (directory / "model.safetensors").unlink()
    torch.save(tensors, directory / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable):
        load(directory, name="tiny")


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path):
    directory = make_tiny_checkpoint(tmp_path / "tiny", **SMALL)
    proof = tmp_path / "ran"
    (directory / "modeling_own.py").write_text(f"open({str(proof)!r}, 'w')\nclass Own: ...\n")
    config = Path(directory / "config.json")
    config.write_text(config.read_text().replace("{", '{"auto_map": {"AutoModel": "modeling_own.Own"},', 1))
    load(directory, name="tiny")
    assert not proof.exists()
