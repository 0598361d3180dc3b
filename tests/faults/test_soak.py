"""A short version of `make soak`."""

from pathlib import Path

import pytest

from tests.faults.album import Album
from tests.faults.nemesis import torment
from tests.faults.report import measured

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

SECONDS = 24.0


def test_nothing_promised_is_lost_to_random_faults(album: Album, tmp_path: Path):
    figures = torment(album, tmp_path / "acknowledged.jsonl", seconds=SECONDS, period_s=3.0, seed=1)
    measured(f"random faults for {SECONDS:.0f} s", **figures)
