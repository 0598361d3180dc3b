"""How large file and process get when a dataset is embedded again and again: `python -m benchmarks.regenerations`.

One process, one dataset of `FLOAT[768]`, a reader that polls without pause. Prints a line a generation: what it took,
the file over the live vectors, and the growth of the process since a first dataset of 1,000 rows.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from serve_app.records import Block, Dataset, FileStamp, ModelCard, SourceFile
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

CARD = ModelCard("benchmark", 768, "benchmark-space", "cpu", "fp32")
COMMIT_ROWS = 256


async def register(store: StoreExecutor, name: str, rows: int) -> Dataset:
    """A dataset of `rows` files that do not exist."""
    scan_id = await store.ask(Datasets.begin_scan)
    for page, start in enumerate(range(0, rows, 10_000)):
        files = [SourceFile(f"{i}.jpg", f"{i}.jpg", None, i, i) for i in range(start, min(start + 10_000, rows))]
        await store.ask(Datasets.put_scan, scan_id, page, files)
    return await store.ask(Datasets.register, scan_id, name=name, root="/", format="folder", annotations=None)


async def generate(store: StoreExecutor, dataset: Dataset) -> None:
    """One whole embed job with random vectors."""
    await store.ask(Jobs.create, dataset.id, "embed", model_name=CARD.name, force=True)
    claim = await store.ask(Jobs.claim, "benchmark", holding=[], lease_s=60)
    if claim is None:
        raise RuntimeError("the job just created cannot be claimed")
    await store.ask(Jobs.begin, claim.job.id, claim.attempt, CARD)
    random = np.random.default_rng(claim.job.seq)
    for block_no, start in enumerate(range(0, dataset.sample_count, COMMIT_ROWS), start=1):
        ids = [f"{i}.jpg" for i in range(start, min(start + COMMIT_ROWS, dataset.sample_count))]
        stamps = [FileStamp(f"{claim.job.id}{i}", 1, 1) for i in ids]
        vectors = random.standard_normal((len(ids), CARD.dimension), np.float32)
        block = Block(ids, vectors, stamps, space_key=CARD.space_key)
        await store.ask(Vectors.put_block, claim.job.id, claim.attempt, block_no, block)
    await store.ask(Vectors.commit, claim.job.id, claim.attempt)


async def poll(store: StoreExecutor, dataset: Dataset) -> None:
    """Read as progress streams do, without their pauses."""
    while True:
        await store.ask(Jobs.latest, [(dataset.id, "embed")])
        await store.ask(Vectors.status, dataset.id)


async def measure(path: Path, *, rows: int, generations: int) -> None:
    """Generate and print."""
    store = StoreExecutor(Database(path))
    process = psutil.Process()
    await generate(store, await register(store, "small", 1000))
    at_first = process.memory_info().rss
    dataset = await register(store, "large", rows)
    reader = asyncio.create_task(poll(store, dataset))
    live = rows * CARD.dimension * 4
    for generation in range(1, generations + 1):
        begin = time.perf_counter()
        await generate(store, dataset)
        figures = {
            "generation": generation,
            "seconds": round(time.perf_counter() - begin, 1),
            "file_over_live": round(path.stat().st_size / live, 2),
            "grown_mb": round((process.memory_info().rss - at_first) / 1e6),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        }
        print(json.dumps(figures), flush=True)
    reader.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reader
    await store.drain_and_close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--generations", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constellate.duckdb"
        asyncio.run(measure(path, rows=options.rows, generations=options.generations))


if __name__ == "__main__":
    main()
