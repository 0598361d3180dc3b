"""What the service is measured against, each in processes of its own: `python -m benchmarks.contenders NAME …`.

`loop` is the script a user would write; `forward` is the model alone, on images that are already decoded.
Each prints one JSON line with the images and seconds of its measured part; loading is not counted.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

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
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint).eval()
    files = image_files(images)
    with tempfile.TemporaryDirectory() as folder:
        connection = duckdb.connect(f"{folder}/vectors.duckdb")
        connection.execute(f"CREATE TABLE embeddings (name VARCHAR, vector FLOAT[{model.config.hidden_size}])")
        begin = time.perf_counter()
        for start in range(0, len(files), LOOP_BATCH):
            batch = files[start : start + LOOP_BATCH]
            inputs = processor([Image.open(path).convert("RGB") for path in batch], return_tensors="pt")
            with torch.inference_mode():
                vectors = model(**inputs).last_hidden_state[:, 0].numpy()
            rows = [(path.name, vector.tolist()) for path, vector in zip(batch, vectors, strict=True)]
            connection.executemany("INSERT INTO embeddings VALUES (?, ?)", rows)
        seconds = time.perf_counter() - begin
        connection.close()
    return {"images": len(files), "seconds": seconds}


def forward(checkpoint: Path, *, processes: int, threads: int, batch: int, seconds: float) -> dict[str, float]:
    """The bare model of transformers, for a fixed time, in `processes` at once."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, initializer=_share, initargs=(barrier,)) as pool:
        counts = pool.starmap(_forward_one, [(checkpoint, threads, batch, seconds)] * processes, chunksize=1)
    return {"images": sum(count for count, _ in counts), "seconds": max(took for _, took in counts)}


def _share(barrier: object) -> None:
    globals()["_barrier"] = barrier


def _forward_one(checkpoint: Path, threads: int, batch: int, seconds: float) -> tuple[int, float]:
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(checkpoint).eval()
    pixels = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32))
    with torch.inference_mode():
        model(pixels)
        globals()["_barrier"].wait()
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            model(pixels)
            count += batch
    return count, time.perf_counter() - begin


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
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
