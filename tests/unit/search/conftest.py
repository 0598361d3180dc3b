"""A dataset of three images with vectors, in a real store."""

import pytest

from serve_app.store.executor import StoreExecutor
from tests.unit.store.workbench import Workbench, lay_blank, source_files

FILES = source_files(3)


@pytest.fixture
async def bench(tmp_path):
    path = tmp_path / "data" / "constellate.duckdb"
    lay_blank(path)
    return Workbench(path)


@pytest.fixture
async def store(bench):
    store = StoreExecutor(bench.database)
    yield store
    await store.drain_and_close()


@pytest.fixture
def dataset(bench):
    """Its first two images are copies of one another."""
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES, contents={FILES[1].sample_id: FILES[0].sample_id})
    return dataset
