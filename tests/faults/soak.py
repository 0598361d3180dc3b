"""`python -m tests.faults.soak --minutes 30`: a service, a user, and an enemy that kills something every few seconds.

At quiet points everything acknowledged must be there, every vector right, every invariant true.
"""

import argparse
import os
import shutil
import time
from pathlib import Path
from tempfile import mkdtemp

from tests.faults.album import Album
from tests.faults.nemesis import torment
from tests.faults.report import measured
from tests.faults.service import Service
from tests.invariants import check_invariants
from tests.ray.photographs import make_folder
from tests.tiny_models import make_tiny_checkpoint

N_IMAGES = 240
ROUND_S = 180.0
PERIOD_S = 8.0


def soak(base: Path, minutes: float, seed: int) -> None:
    """Rounds of random faults, each followed by a clean stop, the invariants, and a new start."""
    service = Service(base, make_tiny_checkpoint(base / "tiny-dinov2"))
    deadline = time.monotonic() + 60 * minutes
    try:
        service.start()
        album = Album.register(service, make_folder(service.roots / "album", n_images=N_IMAGES))
        album.embed()
        album.remember(service.settings.model)
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
            )
            measured(f"soak round {n_round} (seed {seed + n_round})", **figures)
            service.stop()
            check_invariants(service.settings.database_path)
            service.start()
            album.check()
            n_round += 1
        service.stop()
    finally:
        service.kill_all()


def main() -> None:
    """Read the command line and soak in a temporary folder, which is kept when something breaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    base = Path(mkdtemp(prefix="constellate-soak-"))
    print(f"seed {chosen.seed}, data in {base}", flush=True)
    soak(base, chosen.minutes, chosen.seed)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()
