"""What it costs to make a set current and to delete the old one, by size: `python -m benchmarks.commits`.

One process, no service. A dataset is embedded twice; the figures are of the second time. They are seconds of CPU time,
so that other work on the machine counts little.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.regenerations import CARD
from serve_app.records import Block, FileStamp, SourceFile
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.jobs import Jobs
from serve_app.store.retired import Retired
from serve_app.store.running_jobs import Pace
from serve_app.store.vectors import Vectors

BLOCK_ROWS = 2000


class Parts:
    """The store's parts over one file."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        pace = Pace()
        self.datasets = Datasets(self.database)
        self.jobs = Jobs(self.database, pace)
        self.vectors = Vectors(self.database, pace)
        self.retired = Retired(self.database)

    def register(self, rows: int) -> str:
        """A dataset of `rows` files that do not exist; returns its id."""
        scan_id = self.datasets.begin_scan()
        for page, start in enumerate(range(0, rows, 10_000)):
            files = [SourceFile(f"{i}.jpg", f"{i}.jpg", None, i, i) for i in range(start, min(start + 10_000, rows))]
            self.datasets.put_scan(scan_id, page, files)
        return self.datasets.register(scan_id, name="large", root="/", format="folder", annotations=None).id

    def stage(self, dataset_id: str, rows: int, dimension: int) -> tuple[str, int]:
        """A job that lacks nothing but its commit, as its id and attempt."""
        job = self.jobs.create(dataset_id, "embed", model_name=CARD.name, force=True)
        claim = self.jobs.claim("benchmark", holding=[], lease_s=3600)
        assert claim is not None
        self.jobs.begin(job.id, claim.attempt, replace(CARD, dimension=dimension))
        random = np.random.default_rng(0)
        for block_no, start in enumerate(range(0, rows, BLOCK_ROWS), start=1):
            ids = [f"{i}.jpg" for i in range(start, min(start + BLOCK_ROWS, rows))]
            stamps = [FileStamp(f"{job.id}{name}", 1, 1) for name in ids]
            vectors = random.standard_normal((len(ids), dimension), np.float32)
            block = Block(ids, vectors, stamps, space_key=CARD.space_key)
            self.vectors.put_block(job.id, claim.attempt, block_no, block)
        return job.id, claim.attempt


def measure(path: Path, rows: int, dimension: int) -> str:
    """A line of the table for one size."""
    parts = Parts(path)
    dataset_id = parts.register(rows)
    parts.vectors.commit(*parts.stage(dataset_id, rows, dimension))
    staged = parts.stage(dataset_id, rows, dimension)
    begin = time.process_time()
    parts.vectors.commit(*staged)
    commit_s, steps = time.process_time() - begin, []
    while True:
        begin = time.process_time()
        if not parts.retired.step():
            break
        steps.append(time.process_time() - begin)
    parts.database.close()
    size = path.stat().st_size / (rows * dimension * 4)
    return f"| {rows:,} | {commit_s:.3f} | {len(steps)} | {np.median(steps):.3f} | {steps[-1]:.3f} | {size:.2f} |"


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--dimension", type=int, default=384)
    options = parser.parse_args()
    print("| rows | commit, s | steps | a step, s | the last, with its checkpoint, s | file over vectors |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(Path(folder) / "constellate.duckdb", rows, options.dimension), flush=True)


if __name__ == "__main__":
    main()
