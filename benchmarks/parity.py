"""How close the coarser precisions stay on real weights: `python -m benchmarks.parity --images FOLDER`.

The weights are the backbone that the demo falls back to (`demo.offline_weights`). Prints the cosine of each
image's vector to that of fp32: the mean, and the worst.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from benchmarks.contenders import image_files
from demo import offline_weights
from serve_app.config import Settings
from serve_app.embedding.loading import load, precisions
from serve_app.images.decode import decode
from serve_app.records import VectorArray

COARSER = ("int8", "bf16")


def cosines(one: VectorArray, other: VectorArray) -> VectorArray:
    """(N,) row by row."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.einsum("nd,nd->n", one, other) / norms


def measure(checkpoint: Path, images: Path, most: int) -> dict[str, object]:
    """Cosines of at most so many images, evenly spread."""
    cache_dir = Settings.from_environment(os.environ).cache_dir
    files = image_files(images)
    files = files[:: -(-len(files) // most)]
    reference = load(checkpoint, name="fp32", cache_dir=cache_dir, device="cpu", precision="fp32")
    pixels = np.stack([decode(file.read_bytes(), reference.preprocessing) for file in files])
    expected = reference.vectors(pixels)
    report: dict[str, object] = {"weights": offline_weights.NAME, "images": len(files)}
    for precision in COARSER:
        if precision not in precisions("cpu"):
            report[precision] = f"this CPU cannot compute in {precision}"
            continue
        coarse = load(checkpoint, name=precision, cache_dir=cache_dir, device="cpu", precision=precision)
        near = cosines(expected, coarse.vectors(pixels))
        report[precision] = {"mean": round(float(near.mean()), 5), "worst": round(float(near.min()), 5)}
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--most", type=int, default=240)
    options = parser.parse_args()
    checkpoint = offline_weights.prepare(Path("out/benchmarks").resolve())
    print(json.dumps(measure(checkpoint, options.images, options.most), indent=2))


if __name__ == "__main__":
    main()
