"""`python -m tests.faults.soak --minutes 30`: a service, a user, and an enemy that kills something every few seconds.

With `--rows` there is also a large set of vectors, which the enemy replaces now and then, killing the writer meanwhile.

At quiet points everything acknowledged must be there, every vector right, every invariant true, and no part of the
service may have grown: neither its memory, nor its open files, nor the database.
"""

import argparse
import os
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from tests.faults.album import Album
from tests.faults.nemesis import torment
from tests.faults.report import measured
from tests.faults.service import PARTS, Service
from tests.faults.stock import DIMENSION, Stock
from tests.invariants import check_invariants
from tests.ray.client import reduce
from tests.ray.photographs import make_folder
from tests.tiny_models import make_tiny_checkpoint

N_IMAGES = 240
ROUND_S = 180.0
PERIOD_S = 8.0
GROWTH_MB = 150.0
GROWTH_FILES = 100
DATABASE_MB = 100.0
"""Thirty times the vectors of the album."""
STOCK_BYTES = 3 * 4 * DIMENSION
"""On disk for each row of the large set: the set, its successor, and what is not given back yet."""


class Footprint(NamedTuple):
    """What the parts of a service take, a process each, and the database on disk."""

    memory_mb: dict[str, float]
    open_files: dict[str, int]
    database_mb: float

    @classmethod
    def of(cls, service: Service) -> "Footprint":
        """Measure; a part of several processes counts as its largest."""
        memory_mb = service.memory_mb()
        pids = {part: service.pids(part) for part in PARTS}
        return cls(
            {part: round(max(memory_mb.get(pid, 0.0) for pid in each)) for part, each in pids.items() if each},
            {part: max(len(os.listdir(f"/proc/{pid}/fd")) for pid in each) for part, each in pids.items() if each},
            round(service.settings.database_path.stat().st_size / 1e6, 1),
        )

    def check(self, first: "Footprint", *, database_mb: float) -> None:
        """Nothing has grown much since the first quiet point, and the database is no larger than this."""
        for part, megabytes in self.memory_mb.items():
            if part not in first.memory_mb:
                continue  # the processes of maps come and go
            assert megabytes - first.memory_mb[part] < GROWTH_MB, (part, self, first)
            assert self.open_files[part] - first.open_files[part] < GROWTH_FILES, (part, self, first)
        assert self.database_mb < database_mb, self


def soak(base: Path, minutes: float, seed: int, n_rows: int = 0) -> None:
    """Rounds of random faults, each followed by a clean stop, the invariants, and a new start.

    `n_rows` is the size of the large set; without rows there is none.
    """
    database_mb = DATABASE_MB + n_rows * STOCK_BYTES / 1e6
    service = Service(base, make_tiny_checkpoint(base / "tiny-dinov2"))
    try:
        service.start()
        album = Album.register(service, make_folder(service.roots / "album", n_images=N_IMAGES))
        album.embed()
        album.remember(service.settings.model)
        reduce(service.http, album.dataset_id)
        stock = Stock(service, n_rows) if n_rows else None
        if stock is not None:
            stock.check()
        first = Footprint.of(service)
        print(f"at the start: {first}", flush=True)
        deadline = time.monotonic() + 60 * minutes
        n_round = 0
        while time.monotonic() < deadline:
            seconds = min(ROUND_S, deadline - time.monotonic())
            figures = torment(
                album,
                base / "acknowledged.jsonl",
                seconds=seconds,
                period_s=PERIOD_S,
                seed=seed + n_round,
                whole_service=True,
                stock=stock,
            )
            now = Footprint.of(service)
            measured(f"soak round {n_round} (seed {seed + n_round})", **(figures | now._asdict()))
            now.check(first, database_mb=database_mb)
            service.stop()
            check_invariants(service.settings.database_path)
            service.start()
            album.check()
            if stock is not None:
                stock.check()
            n_round += 1
        service.stop()
    finally:
        service.kill_all()


def main() -> None:
    """Read the command line and soak in a temporary folder, which is kept when something breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rows", type=int, default=0, help="vectors of a large set beside the album")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    base = Path(mkdtemp(prefix="constellate-soak-"))
    print(f"seed {chosen.seed}, data in {base}", flush=True)
    soak(base, chosen.minutes, chosen.seed, chosen.rows)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
