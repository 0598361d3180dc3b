"""Sets that do not fit into the writer's 128 MB of memory: two of 300,000 rows, and a small one in the same file."""

import asyncio

import numpy as np
import pyarrow as pa
import pytest

from serve_app.api.export import ARROW_MEDIA_TYPE
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors
from tests.unit.api import work
from tests.unit.store.large_set import file_name, fill

ROWS = 300_000
SETS = {"large": (ROWS, 64), "other": (ROWS, 64), "small": (3_000, 64)}


@pytest.fixture
def datasets(settings, services):
    return fill(settings.database_path, SETS)


async def arrow(client, path):
    answer = await client.get(path, headers={"Accept": ARROW_MEDIA_TYPE})
    assert answer.status_code == 200, answer.text
    return pa.ipc.open_stream(answer.content).read_all()


async def test_everything_is_answered_about_sets_that_are_larger_than_the_writers_memory(client, services, datasets):
    async def ask(name, question, **query):
        answer = await client.get(f"/datasets/{datasets[name]}/{question}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    similar = f"similarity/{file_name(2_999)}"
    found = await asyncio.gather(*(ask(name, similar) for name in SETS for _ in range(2)))
    assert [len(answer["items"]) for answer in found] == [10] * 6
    # Rows 100 apart come from one centre.
    assert all(item["file_name"].split("-")[-4][-2:] == "99" for answer in found for item in answer["items"])
    assert len((await ask("large", "diverse", n=20))["items"]) == 20
    assert (await ask("large", "embeddings/status"))["embedding_count"] == ROWS

    await services.writer.ask(Jobs.create, datasets["large"], "reduce")
    claim = await work.claim(services)
    points = np.arange(2.0 * ROWS).reshape(-1, 2)
    job = await services.writer.ask(Vectors.put_points, claim.job.id, claim.attempt, "job-of-large", points)
    assert job.status == "complete"

    table = await arrow(client, f"/datasets/{datasets['large']}/embeddings/coordinates")
    assert table.column("sample_id")[-1].as_py() == file_name(ROWS - 1)
    assert np.array_equal(np.stack([table.column("x"), table.column("y")], axis=1), points)
    exported = await arrow(client, f"/datasets/{datasets['other']}/embeddings/export?format=arrow")
    assert (exported.num_rows, exported.column("sample_id")[123_456].as_py()) == (ROWS, file_name(123_456))
