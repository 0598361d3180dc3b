"""Converts a checkpoint for OpenVINO: `python -m serve_app.embedding.converter DIRECTORY NAME PRECISION GRAPH`.

It is a program of its own because it needs PyTorch and transformers, which a replica on a CPU never imports. It writes
GRAPH (`*.xml`) and its weights beside it (`*.bin`), in uint8 where PRECISION is int8 and else in fp32. In the same
folder it writes `text.json` with, where the model takes text, the graph of the text tower (`text.xml`, `text.bin`, in
fp32) and its tokenizer. It ends with status 3 if the checkpoint is unusable, and prints the reason.
"""

import sys
import warnings
from pathlib import Path
from typing import Any, cast

import torch

from serve_app.config import Precision
from serve_app.embedding import int8
from serve_app.embedding.checkpoint import family_of, preprocessing_of
from serve_app.embedding.model import blank
from serve_app.embedding.network import PixelEmbedder, read_embedder
from serve_app.embedding.openvino_runtime import openvino
from serve_app.embedding.text import GRAPH, TextRules
from serve_app.embedding.text_network import TextEmbedder, read_tokenizer
from serve_app.errors import ServiceError
from serve_app.images.preprocessing import Preprocessing

UNUSABLE = 3
"""The exit status if the checkpoint is to blame."""


def convert(directory: Path, name: str, precision: Precision, graph: Path) -> None:
    """Convert and write. Raises `ModelUnavailable`: the checkpoint is damaged."""
    preprocessing = preprocessing_of(directory)
    embedder = read_embedder(directory, name, preprocessing)
    converted = _traced(embedder, preprocessing)
    if precision == "int8":
        int8.compress(converted)
    _save(converted, graph)
    _convert_text(embedder.network, directory, graph.parent)


def _convert_text(network: Any, directory: Path, folder: Path) -> None:
    """Write the text tower and its tokenizer; or why there is none."""
    family = family_of(directory)
    tokenizer, rules = read_tokenizer(directory, family)
    rules.write(folder)
    if tokenizer is not None and family.text is not None:
        tokenizer.save(folder)
        _save(_traced_text(TextEmbedder(network, family.text).eval(), rules), folder / GRAPH)


def _save(model: Any, graph: Path) -> None:
    openvino.save_model(model, str(graph), compress_to_fp16=False)


def _traced(embedder: PixelEmbedder, preprocessing: Preprocessing) -> Any:
    """OpenVINO's graph of the module: (?, S, S, 3) pixels -> (?, D) float32."""
    side_px = preprocessing.crop_px
    shape = openvino.PartialShape([-1, side_px, side_px, 3])
    example = torch.from_numpy(blank(preprocessing, 2))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Python's branches, which the shape decides
        return openvino.convert_model(embedder, example_input=example, input=[shape])


def _traced_text(embedder: TextEmbedder, rules: TextRules) -> Any:
    """OpenVINO's graph of the module: two inputs (?, T) int64 -> (?, D) float32."""
    shape = openvino.PartialShape([-1, rules.pads_to or -1])
    tokens = torch.ones(2, rules.pads_to or 8, dtype=torch.int64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return openvino.convert_model(embedder, example_input=(tokens, tokens.clone()), input=[shape, shape])


def main() -> None:
    """Run the program."""
    directory, name, precision, graph = sys.argv[1:]
    try:
        convert(Path(directory), name, cast(Precision, precision), Path(graph))
    except ServiceError as error:
        print(error.detail)
        sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
