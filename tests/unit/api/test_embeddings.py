import asyncio
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.api import embeddings
from serve_app.errors import StoreUnavailable
from tests.unit.api import work
from tests.unit.api.conftest import png

ARROW = "application/vnd.apache.arrow.stream"


def path(dataset, tail):
    return f"/datasets/{dataset['id']}/embeddings/{tail}"


async def test_generate_answers_once_the_job_is_on_disk(client, services, dataset):
    answer = await client.post(path(dataset, "generate"), json={"model_name": "dinov2-small", "force": True})
    assert answer.status_code == 202
    body = answer.json()
    assert body["dataset_id"] == dataset["id"]
    assert body["status"] == "started"
    assert body["message"]
    assert answer.headers["location"] == f"/jobs/{body['job_id']}"
    assert services.runner.n_nudges == 1
    claimed = await work.claim(services)
    assert (claimed.job.id, claimed.job.model_name, claimed.force) == (body["job_id"], "dinov2-small", True)


@pytest.mark.parametrize("body", [None, b"{}", b"null"], ids=["no body", "empty object", "null"])
async def test_generate_without_options_uses_the_default_model(client, services, dataset, body):
    headers = {"Content-Type": "application/json"} if body else {}
    answer = await client.post(path(dataset, "generate"), content=body, headers=headers)
    assert answer.status_code == 202
    assert (await work.claim(services)).job.model_name == services.settings.model


async def test_of_many_generates_at_once_one_starts_and_the_others_learn_its_id(client, dataset):
    answers = await asyncio.gather(*(client.post(path(dataset, "generate")) for _ in range(20)))
    started = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert len(started) == 1
    assert len(refused) == 19
    assert {problem["job_id"] for problem in refused} == set(started)
    assert {problem["code"] for problem in refused} == {"job_running"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model_name": "resnet50"}, "unknown_model"),
        ({"model_name": "/etc"}, "unknown_model"),
        ({"model_name": ""}, "invalid_request"),
        ({"model_name": 5}, "invalid_request"),
        ({"force": "yes"}, "invalid_request"),
        ({"force": 1}, "invalid_request"),
        ({"modelname": "dinov2-base"}, "invalid_request"),
        ([], "invalid_request"),
    ],
    ids=repr,
)
async def test_unusable_options_start_nothing(client, dataset, body, code):
    answer = await client.post(path(dataset, "generate"), json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert (await client.get("/jobs")).json() == []


async def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back(client, services, dataset, monkeypatch):
    async def away(*args, **kwargs):
        raise StoreUnavailable("the writer is away")

    monkeypatch.setattr(services.writer, "ask", away)
    answer = await client.post(path(dataset, "generate"))
    assert answer.status_code == 503
    assert answer.json()["code"] == "store_unavailable"
    assert int(answer.headers["retry-after"]) > 0


async def test_status_tells_what_there_is(client, services, dataset):
    before = (await client.get(path(dataset, "status"))).json()
    assert (before["has_embeddings"], before["embedding_count"]) == (False, 0)
    assert (before["model_name"], before["has_reduction"]) == (None, False)
    job_id = (await client.post(path(dataset, "generate"))).json()["job_id"]
    await work.embed(services)
    after = (await client.get(path(dataset, "status"))).json()
    assert after == {
        "dataset_id": dataset["id"],
        "has_embeddings": True,
        "embedding_count": 4,
        "model_name": "dinov2-base",
        "dimension": 768,
        "space_key": "fake-space",
        "job_id": job_id,
        "has_reduction": False,
        "sample_count": 5,
        "map": None,
        "sets": [
            {
                "model_name": "dinov2-base",
                "space_key": "fake-space",
                "dimension": 768,
                "embedding_count": 4,
                "job_id": job_id,
                "has_reduction": False,
            }
        ],
    }


async def test_skipped_lists_what_was_left_out_and_why(client, embedded):
    page = (await client.get(path(embedded, "skipped"))).json()
    assert page["next_cursor"] is None
    [skip] = page["items"]
    assert skip["sample_id"] == skip["file_name"] == "tulip/broken.png"
    assert skip["reason"] == "unidentified"
    assert skip["detail"]


async def test_a_page_of_skips_never_follows_one_of_an_earlier_job(client, services, dataset, root):
    """Once another job had begun, the next page gave that job's skips, from the middle on."""
    (root / "flowers" / "tulip" / "c.png").write_bytes(b"")
    await client.post(path(dataset, "generate"))
    await work.embed(services)
    first = (await client.get(path(dataset, "skipped"), params={"limit": 1})).json()
    following = {"limit": 1, "cursor": first["next_cursor"]}
    last = (await client.get(path(dataset, "skipped"), params=following)).json()
    assert {skip["reason"] for skip in first["items"] + last["items"]} == {"empty", "unidentified"}
    assert last["next_cursor"] is None

    await client.post(path(dataset, "generate"), json={"force": True})
    answer = await client.get(path(dataset, "skipped"), params=following)
    assert answer.status_code == 409
    assert answer.json()["detail"] == "A newer job has begun meanwhile; list the skips anew."


async def test_cancel_ends_the_running_job_and_keeps_the_vectors(client, services, embedded):
    before = (await client.get(path(embedded, "status"))).json()
    job_id = (await client.post(path(embedded, "generate"), json={"force": True})).json()["job_id"]
    await work.stage(services, await work.begin(services))
    answer = await client.post(path(embedded, "cancel"))
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["job_id"]) == ("cancelled", job_id)
    assert (await client.get(f"/jobs/{job_id}")).json()["status"] == "cancelled"
    assert (await client.get(path(embedded, "status"))).json() == before


async def test_cancel_without_a_job_is_a_conflict(client, embedded):
    answer = await client.post(path(embedded, "cancel"))
    assert answer.status_code == 409
    assert answer.json()["code"] == "nothing_running"


async def test_reduce_before_generate_says_what_to_do(client, dataset):
    answer = await client.post(path(dataset, "reduce"))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "No embeddings found. Generate embeddings first."


async def test_reduce_hands_its_parameters_on(client, services, embedded):
    body = {"n_neighbors": 5, "min_dist": 0, "metric": "euclidean", "random_state": 7}
    answer = await client.post(path(embedded, "reduce"), json=body)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/jobs/{answer.json()['job_id']}"
    assert (await work.claim(services)).params == body | {"redraw": False}
    again = await client.post(path(embedded, "generate"))
    assert again.status_code == 409
    assert again.json()["job_id"] == answer.json()["job_id"]


OUT_OF_BOUNDS = [
    {"n_neighbors": 1},
    {"n_neighbors": 201},
    {"n_neighbors": 15.5},
    {"n_neighbors": "15"},
    {"n_neighbors": True},
    {"n_neighbors": None},
    {"min_dist": -0.1},
    {"min_dist": 1.0},
    {"metric": "haversine"},
    {"random_state": -1},
    {"random_state": 2**32},
    {"spread": 1},
]


async def test_parameters_out_of_bounds_are_refused(client, embedded):
    for body in OUT_OF_BOUNDS:
        answer = await client.post(path(embedded, "reduce"), json=body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"][0]["loc"][-1] == next(iter(body))


async def test_coordinates_are_empty_before_any_reduction(client, embedded):
    answer = await client.get(path(embedded, "coordinates"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == []
    arrow = await client.get(path(embedded, "coordinates"), headers={"Accept": ARROW})
    assert pa.ipc.open_stream(arrow.content).read_all().num_rows == 0


@pytest.mark.parametrize("page_rows", [1, 3, 4, 1000])
async def test_coordinates_join_their_pages_in_both_formats(client, services, embedded, monkeypatch, page_rows):
    monkeypatch.setattr(embeddings, "POINTS_PAGE_ROWS", page_rows)
    await client.post(path(embedded, "reduce"))
    await work.reduce(services)
    points = (await client.get(path(embedded, "coordinates"))).json()
    assert [point["sampleId"] for point in points] == ["rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png"]
    assert points[3] == {
        "sampleId": "tulip/d e+é.png",
        "x": 3.0,
        "y": -3.0,
        "fileName": "tulip/d e+é.png",
        "label": "tulip",
        "thumbnailPath": f"/datasets/{embedded['id']}/samples/tulip/d%20e%2B%C3%A9.png/thumbnail",
    }
    assert (await client.get(points[3]["thumbnailPath"])).status_code == 200
    answer = await client.get(path(embedded, "coordinates"), headers={"Accept": f"{ARROW}, */*;q=0.1"})
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["sample_id", "x", "y", "file_name", "label"]
    assert table["sample_id"].to_pylist() == [point["sampleId"] for point in points]
    assert table["x"].to_pylist() == [point["x"] for point in points]


def read_parquet(content):
    return pq.read_table(io.BytesIO(content))


def read_arrow(content):
    return pa.ipc.open_stream(content).read_all()


@pytest.mark.parametrize("page_rows", [1, 3, 1000])
@pytest.mark.parametrize(("format", "read"), [("parquet", read_parquet), ("arrow", read_arrow)])
async def test_an_export_holds_every_vector_bit_for_bit(
    client, services, root, embedded, monkeypatch, format, read, page_rows
):
    monkeypatch.setattr(embeddings, "EXPORT_PAGE_ROWS", page_rows)
    answer = await client.get(path(embedded, "export"), params={"format": format})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/vnd.apache.")
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="flowers.{format}";')
    table = read(answer.content)
    kept = ["sample_id", "file_name", "label", "model_name", "vector", "x", "y"]
    assert table.column_names == [*kept, "width", "height", "format"]
    assert table["sample_id"].to_pylist() == ["rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png"]
    assert set(table["model_name"].to_pylist()) == {"dinov2-base"}
    for file_name, vector in zip(table["file_name"].to_pylist(), table["vector"].to_pylist(), strict=True):
        expected = services.embedder.model.vector((root / "flowers" / file_name).read_bytes())
        np.testing.assert_array_equal(np.asarray(vector, np.float32), expected)


async def test_an_export_of_nothing_says_what_to_do(client, dataset):
    answer = await client.get(path(dataset, "export"))
    assert answer.status_code == 400
    assert answer.json()["code"] == "no_embeddings"


async def test_an_unknown_export_format_is_refused(client, embedded):
    assert (await client.get(path(embedded, "export"), params={"format": "csv"})).status_code == 422


async def test_an_export_overtaken_by_new_vectors_breaks_off(client, services, root, embedded, monkeypatch):
    monkeypatch.setattr(embeddings, "EXPORT_PAGE_ROWS", 1)
    call, pages = services.writer.ask, 0

    async def replacing(method, *args, **kwargs):
        nonlocal pages
        if method.__name__ == "export":
            pages += 1
            if pages == 2:
                (root / "flowers" / "rose" / "a.png").write_bytes(png((9, 9, 9)))
                monkeypatch.setattr(services.writer, "ask", call)
                await client.post(path(embedded, "generate"), json={"force": True})
                await work.embed(services)
        return await call(method, *args, **kwargs)

    monkeypatch.setattr(services.writer, "ask", replacing)
    with pytest.raises(RuntimeError):
        await client.get(path(embedded, "export"))
    assert pages == 2


async def test_a_hostile_dataset_name_makes_a_harmless_file_name(client, services, root):
    name = '../"; x="\\ 名前'
    dataset = (await client.post("/datasets", json={"name": name, "root": str(root / "flowers")})).json()
    await client.post(path(dataset, "generate"))
    await work.embed(services)
    disposition = (await client.get(path(dataset, "export"))).headers["content-disposition"]
    plain = disposition.removeprefix('attachment; filename="').partition('"')[0]
    assert set(plain) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert not plain.startswith(".")
    assert disposition.isascii()


async def test_a_whole_number_may_be_written_with_a_point(client, services, embedded):
    path = f"/datasets/{embedded['id']}/embeddings/reduce"
    refused = await client.post(path, json={"n_neighbors": 5.5})
    assert (refused.status_code, refused.json()["errors"][0]["loc"]) == (422, ["body", "n_neighbors"])
    assert (await client.post(path, json={"n_neighbors": 5.0, "random_state": 7.0})).status_code == 202
