"""A short version of `make soak`."""

from pathlib import Path

import pytest

from tests.faults.album import Album
from tests.faults.nemesis import torment
from tests.faults.report import measured

# What it does at random, the other tests do one by one: `make test-faults`.
pytestmark = [pytest.mark.faults, pytest.mark.every]

SECONDS = 24.0


def test_nothing_promised_is_lost_to_random_faults(album: Album, tmp_path: Path):
    figures = torment(album, tmp_path / "acknowledged.jsonl", seconds=SECONDS, period_s=3.0, seed=1)
    measured(f"random faults for {SECONDS:.0f} s", **figures)
