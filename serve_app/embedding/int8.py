"""int8 for OpenVINO, without pictures to calibrate with.

The converter stores the weights of linear layers as uint8, with a scale and a zero for each output. OpenVINO rounds the
layers' inputs at run time: each token, and each group of `GROUP` of its components, gets a scale of its own. So a
vector depends neither on other images nor on a choice of pictures (docs/decisions/0013-openvino.md).
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.embedding.openvino_runtime import openvino, ops

GROUP = 128
"""The number of components that share a scale. Of 64, 128, 192, 256 and 384 this was the fastest or next to it."""

OPTIONS: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP}
"""OpenVINO's settings for a compressed graph: what is not a linear layer stays fp32."""


def compress(graph: Any) -> None:
    """Replace the fp32 weights of every linear layer of an OpenVINO graph by uint8, in place."""
    for product in graph.get_ordered_ops():
        if product.get_type_name() != "MatMul" or not product.get_attributes()["transpose_b"]:
            continue
        weights = product.input_value(1).get_node()
        if weights.get_type_name() == "Constant" and len(weights.get_output_shape(0)) == 2:
            product.input(1).replace_source_output(_compressed(weights.get_data()).output(0))


def _compressed(weights: NDArray[np.float32]) -> Any:
    """The subgraph that stands for (outputs, inputs) weights: (uint8 - zero) × scale, as OpenVINO wants it."""
    low = np.minimum(weights.min(axis=1, keepdims=True), 0)
    high = np.maximum(weights.max(axis=1, keepdims=True), 0)
    scale = np.where(high > low, (high - low) / 255, 1).astype(np.float32)
    zero = np.rint(-low / scale).astype(np.uint8)
    levels = np.clip(np.rint(weights / scale) + zero, 0, 255).astype(np.uint8)
    shifted = ops.subtract(*(ops.convert(ops.constant(part), np.float32) for part in (levels, zero)))
    return ops.multiply(shifted, ops.constant(scale))


@functools.cache
def is_computed() -> bool:
    """Whether this processor multiplies in int8, tried on a product of one layer.

    Without the instructions of VNNI, OpenVINO unpacks the weights and computes in fp32, which is exact and no faster;
    or it fails, if ONEDNN_MAX_CPU_ISA takes them away.
    """
    values = np.random.default_rng(0).standard_normal((1, 4, 2 * GROUP)).astype(np.float32)
    weights = np.eye(2 * GROUP, dtype=np.float32)  # exact in uint8, so that only rounded values change the product
    place = ops.parameter(list(values.shape), np.float32)
    graph = openvino.Model([ops.matmul(place, _compressed(weights), False, True)], [place])
    try:
        product = openvino.Core().compile_model(graph, "CPU", OPTIONS)([values])[0]
    except RuntimeError:
        return False
    return bool(np.abs(product - values).max() > 1e-4)
