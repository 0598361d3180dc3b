"""A store for each test, whose invariants are checked when the test is over."""

import pytest

from tests.invariants import check_invariants
from tests.unit.store.workbench import Workbench


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "constellate.duckdb"


@pytest.fixture
def bench(path):
    bench = Workbench(path)
    yield bench
    with bench.database.read() as session:
        check_invariants(session)
    bench.database.close()
