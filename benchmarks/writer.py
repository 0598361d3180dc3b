"""Rows per second into `FLOAT[768]` through the writer's own path, in commits of 256: `python -m benchmarks.writer`."""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from serve_app.records import Block, FileStamp, ModelCard, SourceFile
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

CARD = ModelCard("benchmark", 768, "benchmark-space", "cpu", "fp32")


async def rows_per_s(folder: Path, *, rows: int, commit_rows: int) -> dict[str, float]:
    """Stage `rows` vectors block by block and swap them in; the rate counts staging, the swap has its own figure."""
    store = StoreExecutor(Database(folder / "constellate.duckdb"))
    files = [SourceFile(f"{i}.jpg", f"{i}.jpg", None, i, i) for i in range(rows)]
    scan_id = await store.ask(Datasets.begin_scan)
    await store.ask(Datasets.put_scan, scan_id, 0, files)
    dataset = await store.ask(Datasets.register, scan_id, name="benchmark", root="/", format="folder", annotations=None)
    await store.ask(Jobs.create, dataset.id, "embed", model_name="benchmark")
    claim = await store.ask(Jobs.claim, "benchmark", holding=[], lease_s=60)
    if claim is None:
        raise RuntimeError("the job just created cannot be claimed")
    await store.ask(Jobs.begin, claim.job.id, claim.attempt, CARD)
    vectors = np.random.default_rng(0).standard_normal((rows, 768), np.float32)
    begin = time.perf_counter()
    for block_no, start in enumerate(range(0, rows, commit_rows), start=1):
        ids = [file.sample_id for file in files[start : start + commit_rows]]
        stamps = [FileStamp(f"{start + i:064d}", 1, 1) for i in range(len(ids))]
        block = Block(ids, vectors[start : start + commit_rows], stamps, space_key=CARD.space_key)
        await store.ask(Vectors.put_block, claim.job.id, claim.attempt, block_no, block)
    staged = time.perf_counter()
    await store.ask(Vectors.commit, claim.job.id, claim.attempt)
    swapped = time.perf_counter()
    await store.drain_and_close()
    return {"rows_per_s": round(rows / (staged - begin)), "swap_s": round(swapped - staged, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--commit-rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(asyncio.run(rows_per_s(Path(folder), rows=options.rows, commit_rows=options.commit_rows)))
    rounds.sort(key=lambda measured: measured["rows_per_s"])
    print(json.dumps({"rows": options.rows, "median": rounds[len(rounds) // 2], "rounds": rounds}, indent=2))


if __name__ == "__main__":
    main()
