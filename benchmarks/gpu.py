"""What a GPU can do and how close the service's model comes: `python -m benchmarks.gpu --images FOLDER`.

Needs no Ray. dinov2-base with random weights, bf16, 224 px: the bare compiled model by batch size, the service's
model fed with decoded images, plain and with pinned memory and copies that overlap, decoding by number of threads,
optionally on the GPU (nvJPEG), and the whole path from JPEG to vector. Prints the figures that the table asks for.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.checkpoints import ARCHITECTURES, random_checkpoint
from benchmarks.contenders import image_files
from benchmarks.parity import cosines
from serve_app.embedding.model import ModelRequest
from serve_app.embedding.torch_model import TorchModel
from serve_app.images.decode import Preprocessing, decode

BATCHES = (32, 64, 128, 256)
ROUNDS = 5
Pixels = NDArray[np.uint8]


def batches(total: int, size: int) -> list[tuple[int, int]]:
    """Begin and end of each batch; the last may be smaller."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def rate(run: Callable[[], object], n_images: int, rounds: int = ROUNDS) -> float:
    """Median images/s of `run`, which embeds so many, after one run that is not counted."""
    rates = []
    for number in range(rounds + 1):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number:
            rates.append(n_images / (time.perf_counter() - begin))
    return statistics.median(rates)


def summary(
    bare: dict[int, float], fed: dict[str, float], decoding: dict[str, float], whole: float
) -> dict[str, float]:
    """The ratios of the table: fed with pixels over the best bare batch, and from JPEG over the slower limit."""
    best = max(bare.values())
    return {
        "over_forward": round(max(fed.values()) / best, 3),
        "over_slower": round(whole / min(best, max(decoding.values())), 3),
    }


def bare_rates(checkpoint: Path) -> dict[int, float]:
    """The model of transformers in bf16, compiled with CUDA graphs, on pixels that lie on the GPU."""
    from transformers import AutoModel

    network = AutoModel.from_pretrained(checkpoint, dtype=torch.bfloat16).cuda().eval()
    compiled: Any = torch.compile(network, mode="reduce-overhead")
    rates = {}
    for size in BATCHES:
        pixels = torch.randn(size, 3, 224, 224, device="cuda", dtype=torch.bfloat16)

        def run(pixels: torch.Tensor = pixels) -> None:
            with torch.inference_mode():
                for _ in range(8):
                    torch.compiler.cudagraph_mark_step_begin()
                    compiled(pixels)

        rates[size] = rate(run, 8 * size)
    return rates


def overlapped(model: TorchModel, pixels: Pixels, size: int) -> list[torch.Tensor]:
    """Batches through pinned buffers: the copy of one runs beside the computation of the one before."""
    copying = torch.cuda.Stream()
    results = []
    with torch.inference_mode():
        for start, end in batches(len(pixels), size):
            staged = torch.from_numpy(pixels[start:end]).pin_memory()
            with torch.cuda.stream(copying):
                on_device = staged.to("cuda", non_blocking=True)
            torch.cuda.current_stream().wait_stream(copying)
            on_device.record_stream(torch.cuda.current_stream())
            results.append(model._embedder(on_device))
    return results


def decode_rates(files: Sequence[bytes], preprocessing: Preprocessing) -> dict[str, float]:
    """Images/s of decoding by threads, and on the GPU where torchvision has nvJPEG."""
    cores = os.cpu_count() or 1
    rates = {}
    for threads in sorted({1, 2, 4, 8, cores}):
        with ThreadPoolExecutor(threads) as pool:
            begin = time.perf_counter()
            list(pool.map(lambda data: decode(data, preprocessing), files))
            rates[f"{threads} threads"] = len(files) / (time.perf_counter() - begin)
    try:
        from torchvision.io import decode_jpeg
    except ImportError:
        return rates
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    # Without the resample, so no limit of ours: what could be had at most.
    nvjpeg = rate(lambda: decode_jpeg(encoded, device="cuda"), len(files), rounds=3)
    print(f"nvJPEG, decoding alone: {nvjpeg:.0f} images/s", file=sys.stderr)
    return rates


def decoded_ahead(
    pool: ThreadPoolExecutor, files: Sequence[bytes], size: int, preprocessing: Preprocessing
) -> Iterator[Pixels]:
    """Stacks of decoded images; two batches are always being decoded while one is embedded."""
    parts = batches(len(files), size)
    waiting = [[pool.submit(decode, data, preprocessing) for data in files[a:b]] for a, b in parts[:2]]
    for number in range(len(parts)):
        if number + 2 < len(parts):
            a, b = parts[number + 2]
            waiting.append([pool.submit(decode, data, preprocessing) for data in files[a:b]])
        yield np.stack([future.result() for future in waiting[number]])


def measure(checkpoint: Path, files: Sequence[bytes]) -> dict[str, object]:
    """Everything; the order is from the bare model to the whole path."""
    pixels_as = Preprocessing.from_checkpoint(checkpoint)
    model = TorchModel.load(ModelRequest(checkpoint, "bf16", pixels_as, "cuda", "bf16"))
    reference = TorchModel.load(ModelRequest(checkpoint, "fp32", pixels_as, "cuda", "fp32"))
    decoding = decode_rates(files, model.preprocessing)
    pixels = np.stack([decode(data, model.preprocessing) for data in files])
    fed: dict[str, float] = {}
    for size in BATCHES:
        parts = [pixels[a:b] for a, b in batches(len(pixels), size)]
        fed[f"batch {size}"] = rate(lambda parts=parts: [model.vectors(part) for part in parts], len(pixels))
        fed[f"batch {size}, pinned, overlapped"] = rate(lambda size=size: overlapped(model, pixels, size), len(pixels))
    bare = bare_rates(checkpoint)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        whole = rate(
            lambda: [model.vectors(part) for part in decoded_ahead(pool, files, 128, model.preprocessing)], len(files)
        )
    near = cosines(reference.vectors(pixels[:256]), model.vectors(pixels[:256]))
    return {
        "device": torch.cuda.get_device_name(),
        "bare": bare,
        "fed": fed,
        "decoding": decoding,
        "whole": whole,
        "cosine": round(float(near.min()), 5),
        **summary(bare, fed, decoding, whole),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="dinov2-base")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--most", type=int, default=2048, help="images, those of the folder again and again")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("not measured: this machine has no CUDA GPU, or its PyTorch was built without CUDA")
    files = [file.read_bytes() for file in image_files(options.images)]
    if not files:
        sys.exit(f"{options.images} has no JPEG files")
    many = [files[number % len(files)] for number in range(options.most)]
    print(json.dumps(measure(random_checkpoint(Path("out/benchmarks").resolve(), options.model), many), indent=2))


if __name__ == "__main__":
    main()
