"""Many samples: no process holds on to what a job of them takes. The full 100,000 are `benchmarks/memory.py`."""

import time

import pytest

from tests.faults.album import Album
from tests.faults.memory import MemoryWatch, make_crowd, make_minute_checkpoint
from tests.faults.report import measured
from tests.faults.watching import Follower
from tests.ray.client import reduce

# Two minutes on two cores: `make test-faults`.
pytestmark = [pytest.mark.faults, pytest.mark.every]

SAMPLES = 8000
GROWTH_MB = 150.0
"""Promised for a hundred thousand."""


def test_no_process_grows_with_the_number_of_samples(album: Album):
    service = album.service
    model = str(make_minute_checkpoint(service.roots.parent / "minute-dinov2"))
    watches, began = [], 0.0
    for number, n_images in enumerate((1000, SAMPLES)):
        crowd = Album.register(service, make_crowd(service.roots / f"crowd-{number}", n_images, seed=number))
        began = time.monotonic()
        with MemoryWatch(service) as watch:
            crowd.generate(model_name=model)
            end = Follower(service.settings.url, crowd.dataset_id).start().end()
        watches.append(watch)
        if number == 0:
            reduce(service.http, crowd.dataset_id)  # the reducer's compilation began with the job and is no growth
        assert (end["status"], end["processed"], end["skipped"]) == ("complete", n_images, 0)
    rate = SAMPLES / (time.monotonic() - began)
    grown = watches[1].grown_mb(watches[0])
    largest = next(iter(grown))
    measured(f"{SAMPLES} samples", largest_growth_mb=grown[largest], grown=largest, images_per_s=rate)
    assert grown[largest] < GROWTH_MB, grown
