"""Fifty that ask at once, again and again; through HTTP and every process it is `tests/faults/test_requests.py`."""

import asyncio

import pytest

from serve_app.errors import JobRunning
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from tests.invariants import check_invariants
from tests.unit.store.workbench import Workbench, source_files

ROUNDS = 10
CALLERS = 50


@pytest.fixture
def dataset_id(path):
    workbench = Workbench(path)
    dataset = workbench.register(source_files(2))
    workbench.database.close()
    return dataset.id


@pytest.mark.parametrize("n_rounds", [ROUNDS, pytest.param(100, marks=pytest.mark.every)])
async def test_of_fifty_that_create_a_job_at_once_one_gets_it_and_the_others_its_id(path, dataset_id, n_rounds):
    store = StoreExecutor(Database(path))
    created = []
    for _ in range(n_rounds):
        answers = await asyncio.gather(
            *(store.ask(Jobs.create, dataset_id, "embed", model_name="m") for _ in range(CALLERS)),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, JobRunning)]
        [won] = [answer for answer in answers if not isinstance(answer, JobRunning)]
        assert {error.detail for error in refused} == {won.id}
        created.append(won.id)
        await store.ask(Jobs.cancel, dataset_id)
    listed = [job.id for job in await store.ask(Jobs.all, limit=2 * n_rounds)]
    assert sorted(listed) == sorted(created)
    await store.drain_and_close()
    check_invariants(path)
