"""A model on a CPU, by OpenVINO.

Batches have any size: one compiled graph takes them all, and a pass takes `MICRO_BATCH` images at most, so that memory
does not grow with the caller's batch.
"""

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.config import Precision
from serve_app.embedding import int8
from serve_app.embedding.ir_cache import IRCache
from serve_app.embedding.model import ModelRequest, blank, require_pixels
from serve_app.embedding.openvino_runtime import openvino, ops
from serve_app.embedding.text import GRAPH, TextEncoder, TextRules, Tokens, tokenizer_of
from serve_app.errors import ModelUnavailable, NoTextTower
from serve_app.images.decode import Preprocessing
from serve_app.records import ModelCard, VectorArray

MICRO_BATCH = 4
"""The number of images in one pass: larger passes are no faster, and the activations of 4 fit the caches."""

CAPABILITIES: dict[Precision, str] = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
"""OpenVINO's names of what a processor computes in."""


class OpenVINOModel:
    """A `VisionModel`. Calls from several threads run one after another.

    `micro_batch` is the number of images in one pass.
    """

    def __init__(
        self, compiled: Any, card: ModelCard, preprocessing: Preprocessing, read_text: Callable[[], TextEncoder]
    ) -> None:
        self.card = card
        self._read_text = functools.cache(read_text)
        self.preprocessing = preprocessing
        self.micro_batch = MICRO_BATCH
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, wanted: ModelRequest, *, cache_dir: Path, threads: int | None) -> "OpenVINOModel":
        """Load the converted checkpoint; convert it first where the cache has none.

        Raises:
            ModelUnavailable: the checkpoint is damaged, it cannot be converted, or the cache cannot be written.
        """
        graph = IRCache(cache_dir).graph_of(wanted)
        compiled = _compile(graph, wanted, threads)
        rules = TextRules.read(graph.parent)
        dimension = int(compiled.output(0).get_partial_shape()[1].get_length())
        card = wanted.card(dimension, rules.no_text)
        model = cls(compiled, card, wanted.preprocessing, lambda: _text_of(graph.parent, rules, wanted, threads))
        # The first pass of a shape creates kernels and buffers. It runs now so that no caller waits for it.
        model.vectors(blank(wanted.preprocessing, MICRO_BATCH))
        return model

    def vectors(self, images: NDArray[Any]) -> VectorArray:
        """See `VisionModel.vectors`."""
        if len(images) == 0:
            return np.empty((0, self.card.dimension), np.float32)
        require_pixels(images, self.preprocessing)
        step = self.micro_batch
        return np.concatenate([self._pass(images[start : start + step]) for start in range(0, len(images), step)])

    def text(self) -> TextEncoder:
        """See `VisionModel.text`."""
        if self.card.no_text:
            raise NoTextTower(f"{self.card.name} takes no text: {self.card.no_text}")
        return self._read_text()

    def _pass(self, images: NDArray[Any]) -> VectorArray:
        with self._lock:
            vectors: VectorArray = self._request.infer([np.ascontiguousarray(images)])[0]
        return vectors


def _text_of(folder: Path, rules: TextRules, wanted: ModelRequest, threads: int | None) -> TextEncoder:
    """The converted text tower of a folder."""
    request = _compile(folder / GRAPH, wanted, threads).create_infer_request()
    lock = threading.Lock()

    def run(ids: Tokens, mask: Tokens) -> VectorArray:
        with lock:
            vectors: VectorArray = request.infer([ids, mask])[0].copy()
        return vectors

    return TextEncoder(tokenizer_of(folder), rules, run)


def computes_in(precision: Precision) -> bool:
    """Whether this machine's processor computes in a precision, with the instructions that it may use."""
    if CAPABILITIES.get(precision) not in processor_capabilities():
        return False
    if precision == "int8":
        return int8.is_computed()
    return precision == "fp32" or _compiles_a_product_in(precision)


@functools.cache
def _compiles_a_product_in(precision: Precision) -> bool:
    """Whether a small graph compiles: ONEDNN_MAX_CPU_ISA takes away instructions that the capabilities still name."""
    values = ops.parameter([1, 4, 16], np.float32)
    weights = ops.constant(np.ones((16, 16), np.float32))
    graph = openvino.Model([ops.softmax(ops.matmul(values, weights, False, True), -1)], [values])
    try:
        openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": _hint(precision)})
    except RuntimeError:
        return False
    return True


def _hint(precision: Precision) -> str:
    # Left to itself, OpenVINO computes in bf16 wherever the processor can.
    return "bf16" if precision == "bf16" else "f32"


def processor_capabilities() -> set[str]:
    """What OpenVINO says of the processor, in its own names."""
    return set(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _compile(graph: Path, wanted: ModelRequest, threads: int | None) -> Any:
    options: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # With pinning, two replicas of one thread each may share a core while another is idle.
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": _hint(wanted.precision),
    }
    if wanted.precision == "int8":
        options |= int8.OPTIONS
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        return openvino.Core().compile_model(str(graph), "CPU", options)
    except RuntimeError as error:
        raise ModelUnavailable(f"OpenVINO cannot load {wanted.name}: {str(error).strip()}") from None
