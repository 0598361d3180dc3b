"""A dataset of three images with vectors, in a real store."""

import pytest

from serve_app.store.executor import StoreExecutor
from tests.unit.store.workbench import Workbench, content_of, source_files

FILES = source_files(3)


@pytest.fixture
async def bench(tmp_path):
    return Workbench(tmp_path / "data" / "constellate.duckdb")


@pytest.fixture
async def store(bench):
    store = StoreExecutor(bench.database)
    yield store
    await store.drain_and_close()


def fill(bench):
    bench.embed(bench.register(FILES), FILES, contents={FILES[1].sample_id: FILES[0].sample_id})


@pytest.fixture
def dataset(bench):
    """Its first two images are copies of one another."""
    bench.database.path.write_bytes(content_of(fill))
    return bench.datasets.by_name("flowers")
