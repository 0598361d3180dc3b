"""Vectors made elsewhere, through the real store and the real job loop's commit."""

import asyncio
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.api import guards
from serve_app.errors import ModelUnavailable, StaleAttempt, StoreUnavailable
from serve_app.search.neighbours import Neighbours
from serve_app.store.imports import Imports
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors
from tests.unit.api import work
from tests.unit.api.conftest import png
from tests.whole_set import read

IDS = ["rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png"]
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}
KEYS = {"space_key": "clip/1", "model_name": "clip"}


def path(dataset, tail="import"):
    return f"/datasets/{dataset['id']}/embeddings/{tail}"


def table(ids=IDS, *, vectors=None, kind=None, **columns):
    """Ids beside vectors of five numbers."""
    if vectors is None:
        vectors = np.random.default_rng(1).standard_normal((len(ids), 5)).astype(np.float32).tolist()
    kind = kind or pa.list_(pa.float32(), 5)
    return pa.table({"sample_id": pa.array(ids, pa.string()), "vector": pa.array(vectors, kind), **columns})


def parquet(rows):
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


def arrow(rows, *, as_file=False):
    sink = io.BytesIO()
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=3)
    return sink.getvalue()


async def commit(services):
    """What the job loop does with an import that it claims."""
    claimed = await work.claim(services)
    assert claimed.job.kind == "import"
    return await services.writer.ask(Vectors.commit, claimed.job.id, claimed.attempt)


async def send(client, services, dataset, rows, *, params=KEYS):
    """Import a table as Parquet; returns the job at its end."""
    answer = await client.post(path(dataset), content=parquet(rows), headers=PARQUET, params=params)
    assert answer.status_code == 202, answer.text
    job = await commit(services)
    assert answer.headers["location"] == f"/jobs/{job.id}"
    return job


async def stored(services, dataset):
    return await read(services.writer, dataset["id"])


async def refused(client, dataset):
    items = (await client.get(path(dataset, "skipped"))).json()["items"]
    return [(item["sample_id"], item["reason"]) for item in items]


@pytest.mark.parametrize(
    ("encode", "headers"),
    [
        (parquet, PARQUET),
        (arrow, ARROW),
        (lambda rows: arrow(rows, as_file=True), {"Content-Type": "application/octet-stream"}),
    ],
    ids=["Parquet", "Arrow stream", "Arrow file"],
)
async def test_vectors_of_another_model_become_the_datasets(client, services, embedded, encode, headers):
    rows = table()
    answer = await client.post(path(embedded), content=encode(rows), headers=headers, params=KEYS)
    assert answer.status_code == 202, answer.text
    assert services.runner.n_nudges == 1
    before = (await client.get(path(embedded, "status"))).json()
    assert (before["dimension"], before["model_name"]) == (768, "dinov2-base")
    job = await commit(services)
    assert (job.status, job.processed, job.total, job.message) == ("complete", 4, 4, "Imported vectors of 4 images")
    status = (await client.get(path(embedded, "status"))).json()
    assert (status["dimension"], status["space_key"], status["model_name"]) == (5, "clip/1", "clip")
    found = await stored(services, embedded)
    assert found.sample_ids == IDS
    assert found.vectors.tolist() == rows["vector"].to_pylist()
    assert found.points is None


async def test_a_round_trip_is_bit_exact_and_keeps_the_space(client, services, embedded):
    await client.post(path(embedded, "reduce"))
    await work.reduce(services)
    before = await stored(services, embedded)
    for format, headers in (("parquet", PARQUET), ("arrow", ARROW)):
        exported = await client.get(path(embedded, "export"), params={"format": format})
        answer = await client.post(path(embedded), content=exported.content, headers=headers)
        assert answer.status_code == 202, answer.text
        await commit(services)
        after = await stored(services, embedded)
        assert (after.space_key, after.model_name) == (before.space_key, before.model_name)
        assert after.sample_ids == before.sample_ids
        assert after.vectors.tobytes() == before.vectors.tobytes()
        assert after.points.tobytes() == before.points.tobytes()
        again = await client.get(path(embedded, "export"), params={"format": format})
        assert again.content == exported.content


async def test_an_imported_vector_is_never_taken_for_a_files_own(client, services, embedded):
    """Not even where the file claims the model's own space: nobody has seen what it was made of."""
    key = services.embedder.model.card.space_key
    rows = table(vectors=np.ones((4, 768)).tolist(), kind=pa.list_(pa.float32(), 768))
    await send(client, services, embedded, rows, params={"space_key": key, "model_name": "dinov2-base"})
    before = services.embedder.n_images
    await client.post(path(embedded, "generate"))
    job = await work.embed(services)
    assert (job.status, job.reused, services.embedder.n_images - before) == ("complete", 0, 5)


async def test_rows_that_cannot_be_used_are_listed_with_their_reasons(client, services, dataset):
    nan, big = float("nan"), 1e300
    ids = [IDS[0], "gone.png", IDS[1], IDS[2], IDS[3], IDS[0], None, IDS[1]]
    vectors = [[1, 2, 3], [1, 2, 3], [1, 2], [1, nan, 3], [0, 0, 0], [4, 5, 6], [1, 2, 3], [1, 2, big]]
    rows = table(ids, vectors=vectors, kind=pa.list_(pa.float64()))
    job = await send(client, services, dataset, rows)
    assert (job.status, job.processed, job.skipped, job.total) == ("complete", 8, 7, 8)
    assert job.message == "Imported vectors of 1 image, 7 rows refused"
    assert sorted(await refused(client, dataset)) == sorted(
        [
            ("gone.png", "unknown_sample"),
            (IDS[1], "wrong_dimension"),
            (IDS[2], "nonfinite"),
            (IDS[3], "zero"),
            (IDS[0], "duplicate"),
            ("", "unknown_sample"),
            (IDS[1], "nonfinite"),
        ]
    )
    assert (await stored(services, dataset)).vectors.tolist() == [[1, 2, 3]]


async def test_rows_may_name_files_and_have_places(client, services, dataset):
    names = pa.array(IDS).dictionary_encode()
    rows = table(x=pa.array([0.1, 2, None, 1]), y=pa.array([1.0, 3, None, None]))
    rows = rows.drop_columns("sample_id").append_column("file_name", names)
    job = await send(client, services, dataset, rows)
    assert (job.status, job.skipped) == ("complete", 1)
    assert await refused(client, dataset) == [(IDS[3], "bad_point")]
    found = await stored(services, dataset)
    assert np.array_equal(found.points, [[0.1, 1.0], [2, 3], [np.nan, np.nan]], equal_nan=True)


async def test_an_import_without_one_usable_row_changes_nothing(client, services, embedded):
    before = await stored(services, embedded)
    job = await send(client, services, embedded, table(["x", "y"]))
    assert (job.status, job.skipped) == ("error", 2)
    assert job.message.startswith("no_valid_rows: none of 2 rows")
    after = await stored(services, embedded)
    assert (after.job_id, after.vectors.tobytes()) == (before.job_id, before.vectors.tobytes())


async def test_neighbours_and_the_map_work_and_uploads_are_refused(client, services, dataset):
    rows = table(vectors=[[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]], kind=pa.list_(pa.float32(), 2))
    await send(client, services, dataset, rows)
    [nearest] = await services.searcher.ask(Neighbours.similar, dataset["id"], IDS[0], 1)
    assert nearest.sample_id == IDS[1]
    assert (await services.searcher.ask(Neighbours.duplicates, dataset["id"], 0.999)).groups == []
    await client.post(path(dataset, "reduce"))
    assert (await work.reduce(services)).status == "complete"
    answer = await client.post(f"/datasets/{dataset['id']}/search", files={"file": ("q.png", png())})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "'clip'" in answer.json()["detail"]


async def test_one_job_runs_at_a_time(client, services, dataset):
    content = parquet(table())
    first = (await client.post(path(dataset), content=content, headers=PARQUET, params=KEYS)).json()["job_id"]
    for answer in (
        await client.post(path(dataset), content=content, headers=PARQUET, params=KEYS),
        await client.post(path(dataset, "generate")),
    ):
        assert (answer.status_code, answer.json()["job_id"]) == (409, first)
    assert (await client.post(path(dataset, "cancel"))).status_code == 202
    assert (await client.get(f"/jobs/{first}")).json()["status"] == "cancelled"
    assert (await client.get(path(dataset, "status"))).json()["has_embeddings"] is False


def shuffled(rows):
    content = bytearray(parquet(rows))
    content[40:400] = bytes(reversed(content[40:400]))
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"text", "cannot be read as Parquet or Arrow"),
        (b"PAR1" + b"\0" * 50, "cannot be read as Parquet or Arrow"),
        (b"ARROW1" + b"\0" * 50, "cannot be read as Parquet or Arrow"),
        (arrow(table())[:300], "cannot be read as Parquet or Arrow"),
        (arrow(table()).replace(b"vector", b"vect\xffr"), "cannot be read as Parquet or Arrow"),
        (shuffled(table()), "cannot be read as Parquet or Arrow"),
        (parquet(table([])), "no rows"),
        (parquet(table().drop_columns("vector")), "no column vector"),
        (parquet(table().drop_columns("sample_id")), "neither a column sample_id"),
        (parquet(table(x=pa.array([1.0] * 4))), "not the other coordinate"),
        (parquet(table(x=pa.array(["1"] * 4), y=pa.array([1.0] * 4))), "column x is of type string"),
        (parquet(table(kind=pa.list_(pa.float16()))), "float32 or float64"),
        (parquet(table(vectors=[[]] * 4, kind=pa.list_(pa.float32()))), "dimension 0"),
        (parquet(table(vectors=[[1.0] * 20_000] * 4, kind=pa.list_(pa.float32()))), "the limit is 16,384"),
        (parquet(table().set_column(0, "sample_id", pa.array([0.5] * 4))), "text or whole numbers"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_and_starts_no_job(client, dataset, content, says):
    answer = await client.post(path(dataset), content=content, headers=PARQUET, params=KEYS)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert says in answer.json()["detail"]
    assert (await client.get("/jobs")).json() == []


async def test_damage_behind_the_first_rows_ends_the_job_as_an_error(client, services, embedded):
    rows = table(IDS * 1500, x=pa.array(np.zeros(6000)), y=pa.array(np.zeros(6000)))
    sink = io.BytesIO()
    pq.write_table(rows, sink, row_group_size=3000, compression="none", use_dictionary=False)
    content = bytearray(sink.getvalue())
    second = pq.read_metadata(sink).row_group(1).column(0).data_page_offset
    content[second : second + 30] = b"\xff" * 30
    answer = await client.post(path(embedded), content=bytes(content), headers=PARQUET, params=KEYS)
    assert answer.status_code == 422, answer.text
    job = (await client.get("/jobs")).json()[0]
    assert (job["kind"], job["status"]) == ("import", "error")
    assert (await client.get(path(embedded, "status"))).json()["model_name"] == "dinov2-base"


@pytest.mark.parametrize("missing", ["space_key", "model_name"])
async def test_what_the_vectors_are_must_be_said(client, dataset, missing):
    params = {name: value for name, value in KEYS.items() if name != missing}
    answer = await client.post(path(dataset), content=parquet(table()), headers=PARQUET, params=params)
    assert answer.status_code == 422
    assert f"?{missing}=" in answer.json()["detail"]


async def test_a_files_own_words_are_no_better_than_a_parameter(client, dataset):
    rows = table().replace_schema_metadata({"space_key": "a\nb", "model_name": "m"})
    answer = await client.post(path(dataset), content=parquet(rows), headers=PARQUET)
    assert answer.status_code == 422
    answer = await client.post(path(dataset), content=parquet(rows), headers=PARQUET, params={"space_key": "a\nb"})
    assert answer.status_code == 422


async def test_an_unknown_dataset_and_another_media_type_are_refused(client, dataset):
    answer = await client.post(path({"id": "nope"}), content=parquet(table()), headers=PARQUET, params=KEYS)
    assert answer.status_code == 404
    answer = await client.post(path(dataset), json={}, params=KEYS)
    assert answer.status_code == 415


async def test_a_file_over_the_limit_is_refused_and_leaves_nothing_on_disk(client, settings, dataset, monkeypatch):
    rule = next(rule for rule in guards.BODY_RULES if rule.spooled)
    others = tuple(rule for rule in guards.BODY_RULES if not rule.spooled)
    monkeypatch.setattr(guards, "BODY_RULES", (rule._replace(limit_bytes=1000), *others))

    async def parts():
        for _ in range(20):
            yield b"x" * 100

    before = sorted(settings.data_dir.iterdir())
    for body in (b"x" * 1001, parts()):
        answer = await client.post(path(dataset), content=body, headers=PARQUET, params=KEYS)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert sorted(settings.data_dir.iterdir()) == before


async def test_files_that_arrive_together_take_a_bounded_part_of_the_disk(client, dataset, monkeypatch):
    monkeypatch.setattr(guards, "MAX_SPOOLED_BYTES", 100)
    answer = await client.post(path(dataset), content=parquet(table()), headers=PARQUET, params=KEYS)
    assert (answer.status_code, answer.json()["code"]) == (429, "saturated")


@pytest.mark.parametrize("job", ["embeddings/generate", "rescan"])
async def test_while_a_job_runs_a_file_is_refused_before_it_is_read(client, dataset, job):
    was_read = asyncio.Event()

    async def body():
        was_read.set()
        yield b"x"

    begun = await client.post(f"/datasets/{dataset['id']}/{job}", headers={"Prefer": "respond-async"})
    assert begun.status_code == 202, begun.text
    answer = await client.post(path(dataset), content=body(), headers=PARQUET, params=KEYS)
    assert (answer.status_code, answer.json()["code"]) == (409, "job_running")
    assert not was_read.is_set()


class Interrupting:
    """A writer on which something happens before the second block of an import."""

    def __init__(self, writer, happening):
        self._writer = writer
        self._happening = happening

    async def ask(self, method, *args, **kwargs):
        if method is Imports.put and args[2] == 2 and self._happening:
            happening, self._happening = self._happening, None
            await happening()
        return await self._writer.ask(method, *args, **kwargs)


@pytest.fixture
def interrupted(services, monkeypatch):
    """Have something happen in the middle of the next import."""

    def interrupt(happening):
        monkeypatch.setattr("serve_app.jobs.vector_file.BLOCK_ROWS", 2)
        object.__setattr__(services, "writer", Interrupting(services.writer, happening))

    return interrupt


async def test_a_block_in_doubt_is_sent_again_and_counts_once(client, services, dataset, interrupted):
    async def lose_the_answer():
        raise StoreUnavailable("the writer did not answer in time")

    interrupted(lose_the_answer)
    job = await send(client, services, dataset, table())
    assert (job.status, job.processed) == ("complete", 4)


async def test_an_import_that_is_cancelled_on_the_way_says_so(client, services, dataset, interrupted):
    async def cancel():
        await services.writer.ask(Jobs.cancel, dataset["id"])

    interrupted(cancel)
    answer = await client.post(path(dataset), content=parquet(table()), headers=PARQUET, params=KEYS)
    assert (answer.status_code, answer.json()["code"]) == (409, StaleAttempt.code)
    assert (await client.get("/jobs")).json()[0]["status"] == "cancelled"


async def test_an_import_whose_sender_is_gone_ends_as_an_error_for_the_next_claim(
    client, services, embedded, interrupted
):
    hanging = asyncio.Event()

    async def hang():
        hanging.set()
        await asyncio.Event().wait()

    interrupted(hang)
    sending = asyncio.create_task(client.post(path(embedded), content=parquet(table()), headers=PARQUET, params=KEYS))
    await hanging.wait()
    assert await services.writer.ask(Jobs.claim, "runner", holding=[], lease_s=5) is None
    sending.cancel()
    await asyncio.wait({sending})
    job = (await client.get("/jobs")).json()[0]
    await services.writer.ask(Jobs.release, job["id"], job["attempt"])  # as the end of its lease does
    job = await commit(services)
    assert (job.status, job.processed, job.total) == ("error", 2, 4)
    assert job.message.startswith("transfer_broken: 2 of 4 rows")
    assert (await stored(services, embedded)).model_name == "dinov2-base"


async def test_search_still_says_when_a_known_model_cannot_be_had(client, services, embedded):
    services.embedder.fault = ModelUnavailable("no weights")
    answer = await client.post(f"/datasets/{embedded['id']}/search", files={"file": ("q.png", png())})
    assert answer.status_code == 503
