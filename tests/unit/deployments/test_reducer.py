"""The reducer beside a writer that comes and goes."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from deployments import reducer
from serve_app.errors import StoreUnavailable
from serve_app.projection.reduction import Fitted, Projection
from serve_app.store.vectors import Vectors
from tests.unit.jobs.test_reduce_job import three_vectors


class ComesAndGoes:
    """A writer that is away for the first two questions of each kind."""

    def __init__(self):
        self.asked = []

    async def ask(self, method, *args, **kwargs):
        self.asked.append(method)
        if self.asked.count(method) <= 2:
            raise StoreUnavailable("the writer is away")
        return None


class Sets:
    """Three vectors."""

    def __init__(self, folder, writer):
        pass

    async def current(self, dataset_id, model):
        assert model == "m"
        return three_vectors()


async def test_a_finished_fit_is_kept_until_the_writer_is_back(monkeypatch, settings):
    writer, fits = ComesAndGoes(), []

    class Process:
        async def fit(self, folder, projection, on_progress):
            fits.append(folder)
            return Fitted(np.zeros((3, 2)))

    monkeypatch.setattr(reducer, "WriterHandle", lambda settings: writer)
    monkeypatch.setattr(reducer, "SetFiles", Sets)
    monkeypatch.setattr(reducer.os, "nice", lambda niceness: niceness)
    monkeypatch.setattr(reducer, "FitProcess", Process)
    claim = SimpleNamespace(
        job=SimpleNamespace(id="job", model_name="m"),
        attempt=1,
        dataset=SimpleNamespace(id="set"),
        params=Projection().model_dump(),
    )
    assert await reducer.Reducer(settings).reduce(claim) is None
    assert fits == [Path("three")]
    assert writer.asked.count(Vectors.put_points) == 3
