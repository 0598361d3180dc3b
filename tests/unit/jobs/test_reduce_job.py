import asyncio
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import StoreUnavailable
from serve_app.jobs import reduce_job, telling
from serve_app.projection.reduction import Fitted, Projection
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors


def three_vectors():
    """As much of a `SetFile` as a reduce job looks at."""
    rows = pa.table({"content_hash": pa.nulls(3, pa.string())})
    matrix = np.ones((3, 2), np.float32)
    return SimpleNamespace(matrix=matrix, rows=rows, version="1", job_id="embed", folder=Path("three"))


class Writer:
    """Answers what a reduce job asks and keeps what it is told; `told` is set at the first report of an epoch."""

    def __init__(self, away):
        self.messages, self.points = [], None
        self.away = away
        self.told = asyncio.Event()

    async def ask(self, method, *args, **kwargs):
        if method is Jobs.announce:
            self.messages.append((kwargs["phase"], kwargs["message"]))
            if "epoch" in kwargs["message"]:
                self.told.set()
                if self.away:
                    raise StoreUnavailable("the writer is away")
        if method is Vectors.put_points:
            self.points = args[-1].points
        return None


class Sets:
    """Three vectors."""

    async def current(self, dataset_id, model):
        assert model == "m"
        return three_vectors()


class Slow:
    """A fit that ends when the writer was told of its epoch."""

    def __init__(self, told):
        self._told = told

    async def fit(self, folder, projection, on_progress):
        on_progress("layout", 120, 500)
        await self._told.wait()
        return Fitted(np.zeros((3, 2)))


@pytest.mark.parametrize("away", [False, True])
async def test_the_stream_of_a_map_tells_the_epoch_and_a_lost_report_costs_nothing(monkeypatch, away):
    writer = Writer(away)
    monkeypatch.setattr(telling, "TELL_S", 0.01)
    claim = SimpleNamespace(
        job=SimpleNamespace(id="job", model_name="m"),
        attempt=1,
        dataset=SimpleNamespace(id="set"),
        params=Projection().model_dump(),
    )
    await reduce_job.reduce_job(claim, writer, Sets(), Slow(writer.told))
    assert ("fitting", "Fitting UMAP to 3 vectors: epoch 120 of 500") in writer.messages
    assert writer.points.shape == (3, 2)
