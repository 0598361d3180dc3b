"""How much each process of the service grows between 1,000 and 100,000 samples. `python -m benchmarks.memory`.

A tiny model of 768 dimensions and as many distinct files; what a process took at most in jobs of a thousand is
compared with what it takes at most in the large one. Memory that Ray's processes share is not counted.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.faults.album import Album
from tests.faults.memory import MemoryWatch, make_crowd, make_minute_checkpoint
from tests.faults.service import Service
from tests.faults.watching import Follower
from tests.ray.client import reduce

SMALL = 1000
PATIENCE_S = 1800.0


def embed(service: Service, root: Path) -> float:
    """Register the folder and embed it; the seconds from POST to the end."""
    album = Album.register(service, root)
    began = time.monotonic()
    album.generate()
    end = Follower(service.settings.url, album.dataset_id).start().end(timeout_s=PATIENCE_S)
    if (end["status"], end["processed"], end["skipped"]) != ("complete", album.n_images, 0):
        raise RuntimeError(f"the job ended {end}")
    return time.monotonic() - began


def measure(folder: Path, samples: int) -> dict[str, object]:
    """Two jobs of a thousand, then the large one."""
    service = Service(folder, make_minute_checkpoint(folder / "minute-dinov2"))
    service.http.timeout = PATIENCE_S
    try:
        service.start()
        with MemoryWatch(service) as before:
            for number in range(2):
                embed(service, make_crowd(service.roots / f"small-{number}", SMALL, seed=number))
            # The reducer's compilation begins with the first job and is no growth.
            reduce(service.http, service.http.get("/datasets").json()[0]["id"])
        with MemoryWatch(service) as after:
            seconds = embed(service, make_crowd(service.roots / "large", samples, seed=2))
        service.stop()
    finally:
        service.kill_all()
    grown = after.grown_mb(before)
    largest = next(iter(grown))
    return {
        "samples": samples,
        "images_per_s": round(samples / seconds),
        "largest_growth_mb": round(grown[largest], 1),
        "largest_growth_of": largest,
        "growth_mb": {title: round(megabytes, 1) for title, megabytes in grown.items() if megabytes > 5},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options.samples), indent=2))


if __name__ == "__main__":
    main()
