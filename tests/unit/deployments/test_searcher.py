"""A question on its way: handle, replica, the writer's handle, the writer, the store, and back."""

import numpy as np
import pytest

from deployments import writer
from deployments.handles import SearcherHandle
from deployments.searcher import Searcher
from serve_app.errors import Conflict, DatasetNotFound, InvalidRequest
from serve_app.search.neighbours import Neighbours
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from tests.unit.deployments.local_handle import LocalHandle
from tests.unit.store.workbench import CARD, Workbench, source_files, vector_of

FILES = source_files(3)


class Writer:
    """The actor's one method."""

    def __init__(self, store):
        self._store = store

    async def ask(self, name, args, kwargs, ids):
        return await self._store.ask_named(name, args, kwargs)


@pytest.fixture
def dataset(settings):
    """Three images with vectors."""
    bench = Workbench(settings.database_path)
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.database.close()
    return dataset


@pytest.fixture
async def replica(settings, dataset, monkeypatch):
    store = StoreExecutor(Database(settings.database_path))
    monkeypatch.setattr(writer, "find_or_start", lambda settings: LocalHandle(Writer(store)))
    yield Searcher(settings)
    await store.drain_and_close()


@pytest.fixture
def searcher(replica):
    return SearcherHandle(LocalHandle(replica))


async def test_questions_are_answered(searcher, dataset):
    [nearest] = await searcher.ask(Neighbours.search, dataset.id, vector_of("img/1.jpg"), CARD.space_key, limit=1)
    assert (nearest.sample_id, nearest.score) == ("img/1.jpg", pytest.approx(1))
    assert len(await searcher.ask(Neighbours.diverse, dataset.id, 2)) == 2


async def test_a_service_error_is_raised_to_whoever_asked(searcher, dataset):
    with pytest.raises(Conflict, match="another model"):
        await searcher.ask(Neighbours.search, dataset.id, np.ones(4, np.float32), "another space", 1)
    with pytest.raises(DatasetNotFound):
        await searcher.ask(Neighbours.outliers, "nope", 1, 1)


async def test_a_replica_answers_service_errors_as_values(replica):
    """What a replica raises, Serve logs with a traceback."""
    assert isinstance(await replica.ask("Neighbours.diverse", ("nope", 1), {}), DatasetNotFound)


@pytest.mark.parametrize("name", ["Neighbours._long", "Neighbours.__init__", "Vectors.read", "nope"])
async def test_a_replica_refuses_what_is_no_question(replica, dataset, name):
    refused = await replica.ask(name, (dataset.id,), {})
    assert isinstance(refused, InvalidRequest)
