"""Converts a checkpoint for OpenVINO: `python -m serve_app.embedding.converter DIRECTORY NAME GRAPH`.

It is a program of its own because it needs PyTorch and transformers, which a replica on a CPU never imports. It writes
GRAPH (`*.xml`) and its weights in fp32 beside it (`*.bin`). It ends with status 3 if the checkpoint is unusable, and
prints the reason.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from serve_app.embedding.network import PixelEmbedder, read_embedder
from serve_app.embedding.openvino_runtime import openvino
from serve_app.errors import ModelUnavailable
from serve_app.images.decode import Preprocessing

UNUSABLE = 3
"""The exit status if the checkpoint is to blame."""


def convert(directory: Path, name: str, graph: Path) -> None:
    """Convert and write. Raises `ModelUnavailable`: the checkpoint is damaged."""
    preprocessing = Preprocessing.from_checkpoint(directory)
    converted = _traced(read_embedder(directory, name, preprocessing), preprocessing.crop_px)
    openvino.save_model(converted, str(graph), compress_to_fp16=False)


def _traced(embedder: PixelEmbedder, side_px: int) -> Any:
    """OpenVINO's graph of the module: (?, S, S, 3) uint8 -> (?, D) float32."""
    shape = openvino.PartialShape([-1, side_px, side_px, 3])
    example = torch.zeros(2, side_px, side_px, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Python's branches, which the shape decides
        return openvino.convert_model(embedder, example_input=example, input=[shape])


def main() -> None:
    """Run the program."""
    directory, name, graph = sys.argv[1:]
    try:
        convert(Path(directory), name, Path(graph))
    except ModelUnavailable as error:
        print(error.detail)
        sys.exit(UNUSABLE)


if __name__ == "__main__":
    main()
