"""What the service is measured against, each in processes of its own: `python -m benchmarks.contenders NAME …`.

`loop` is the script a user would write; `forward` is the model alone, on images that are already decoded: the plain
one of transformers, or with `--own PRECISION` the service's.
Each prints one JSON line with the images and seconds of its measured part; loading is not counted.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LOOP_BATCH = 32


def image_files(folder: Path) -> list[Path]:
    """Every JPEG below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})


def loop(checkpoint: Path, images: Path) -> dict[str, float]:
    """PIL, `AutoImageProcessor`, `AutoModel` in batches of 32, `executemany` into DuckDB."""
    import duckdb
    import torch
    from PIL import Image
    from transformers import AutoModel

    processor = _processor(checkpoint)
    model = AutoModel.from_pretrained(checkpoint).eval()
    files = image_files(images)
    with tempfile.TemporaryDirectory() as folder:
        connection = duckdb.connect(f"{folder}/vectors.duckdb")
        dimension = getattr(model.config, "projection_dim", 0) or model.config.get_text_config().hidden_size
        connection.execute(f"CREATE TABLE embeddings (name VARCHAR, vector FLOAT[{dimension}])")
        begin = time.perf_counter()
        for start in range(0, len(files), LOOP_BATCH):
            batch = files[start : start + LOOP_BATCH]
            inputs = processor([Image.open(path).convert("RGB") for path in batch], return_tensors="pt")
            with torch.inference_mode():
                vectors = _vectors(model, inputs).numpy()
            rows = [(path.name, vector.tolist()) for path, vector in zip(batch, vectors, strict=True)]
            connection.executemany("INSERT INTO embeddings VALUES (?, ?)", rows)
        seconds = time.perf_counter() - begin
        connection.close()
    return {"images": len(files), "seconds": seconds}


def _vectors(model: Any, inputs: Any) -> Any:
    """The projected vectors of a model with two towers, otherwise the class tokens."""
    if hasattr(model, "get_image_features"):
        return model.get_image_features(**inputs).pooler_output
    return model(**inputs).last_hidden_state[:, 0]


def _processor(checkpoint: Path) -> Callable[..., Any]:
    """The checkpoint's own processor; that of DINOv3 needs torchvision, so its resize by PyTorch stands for it."""
    import torch
    from transformers import AutoImageProcessor

    config = json.loads((checkpoint / "preprocessor_config.json").read_text())
    if "DINOv3" not in config.get("image_processor_type", ""):
        return AutoImageProcessor.from_pretrained(checkpoint)
    side = config["size"]["height"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    def process(images: list[Any], return_tensors: str) -> dict[str, Any]:
        scaled = [torch.from_numpy(np.asarray(image).transpose(2, 0, 1) / np.float32(255)) for image in images]
        resize = torch.nn.functional.interpolate
        resized = [resize(s[None], (side, side), mode="bilinear", antialias=True)[0] for s in scaled]
        return {"pixel_values": torch.stack([(image - mean) / std for image in resized])}

    return process


def forward(
    checkpoint: Path, *, processes: int, threads: int, batch: int, seconds: float, own: str = ""
) -> dict[str, float]:
    """The bare model for a fixed time, in `processes` at once; `p50_ms` is that of one pass."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, initializer=_share, initargs=(barrier,)) as pool:
        passes_s = pool.starmap(_forward_one, [(checkpoint, threads, batch, seconds, own)] * processes, chunksize=1)
    return {
        "images": batch * sum(map(len, passes_s)),
        "seconds": max(map(sum, passes_s)),
        "p50_ms": 1000 * statistics.median(took for passes in passes_s for took in passes),
    }


def _share(barrier: object) -> None:
    globals()["_barrier"] = barrier


def _forward_one(checkpoint: Path, threads: int, batch: int, seconds: float, own: str) -> list[float]:
    """Seconds of each pass."""
    import torch

    torch.set_num_threads(threads)
    run = _own(checkpoint, threads, batch, own) if own else _plain(checkpoint, batch)
    passes_s: list[float] = []
    with torch.inference_mode():
        run()
        globals()["_barrier"].wait()
        while sum(passes_s) < seconds:
            begin = time.perf_counter()
            run()
            passes_s.append(time.perf_counter() - begin)
    return passes_s


def _plain(checkpoint: Path, batch: int) -> Callable[[], object]:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(checkpoint).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32))
    return lambda: model(pixels)


def _own(checkpoint: Path, threads: int, batch: int, precision: Any) -> Callable[[], object]:
    from serve_app.config import Settings
    from serve_app.embedding import loading

    model = loading.load(
        checkpoint,
        name=checkpoint.name,
        cache_dir=Settings.from_environment(os.environ).cache_dir,
        device="cpu",
        precision=precision,
        threads=threads,
    )
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    return lambda: model.vectors(pixels)


def main() -> None:
    """Run one contender and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("loop", "forward"))
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--own", default="", metavar="PRECISION")
    options = parser.parse_args()
    if options.name == "loop":
        result = loop(options.checkpoint, options.images)
    else:
        result = forward(
            options.checkpoint,
            processes=options.processes,
            threads=options.threads,
            batch=options.batch,
            seconds=options.seconds,
            own=options.own,
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
