"""Columns, tags and filters over HTTP, on the real store."""

import io
from datetime import UTC, datetime
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.api import columns as columns_api
from tests.unit.api import work

CSV = {"Content-Type": "text/csv"}
TABLE = {"Content-Type": "application/octet-stream"}
NAMES = ["rose/a.png", "rose/b.png", "tulip/broken.png", "tulip/c.png", "tulip/d e+é.png"]


def parquet(columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


async def put(client, dataset, body, headers=TABLE):
    answer = await client.put(f"/datasets/{dataset['id']}/columns", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def chosen(client, dataset, where):
    answer = await client.get(f"/datasets/{dataset['id']}/samples", params={"where": where})
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def listed(client, dataset):
    answer = await client.get(f"/datasets/{dataset['id']}/columns")
    return {column["name"]: column for column in answer.json()}


async def tag(client, dataset, name, body, method="POST"):
    answer = await client.request(method, f"/datasets/{dataset['id']}/tags/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_columns_of_a_csv_filter_samples(client, dataset):
    change = await put(client, dataset, b"file_name,width,good\nrose/a.png,640,true\ntulip/c.png,80,\n", CSV)
    assert (change["columns"], change["rows"], change["matched"], change["refused"]) == (["width", "good"], 2, 2, [])
    assert await chosen(client, dataset, "width > 100") == ["rose/a.png"]
    assert await chosen(client, dataset, "width <= 100 OR good") == ["rose/a.png", "tulip/c.png"]
    assert await chosen(client, dataset, "width IS NULL AND label = 'rose'") == ["rose/b.png"]


async def test_columns_keep_their_types_and_are_listed_with_values_or_range(client, dataset):
    taken = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    columns = {
        "sample_id": NAMES[:3],
        "word": pa.array(["x", "y", "x"]).dictionary_encode(),
        "n": pa.array([1, 2, None], pa.int32()),
        "x1": pa.array([0.5, float("nan"), 2.5]),
        "ok": [True, False, None],
        "taken": pa.array(taken, pa.timestamp("ns", "Europe/Berlin")),
    }
    await put(client, dataset, parquet(columns))
    found = await listed(client, dataset)
    assert {name: found[name]["type"] for name in columns if name != "sample_id"} == {
        "word": "text",
        "n": "number",
        "x1": "number",
        "ok": "boolean",
        "taken": "time",
    }
    assert found["word"]["values"] == [{"value": "x", "count": 2}, {"value": "y", "count": 1}]
    assert (found["x1"]["count"], found["x1"]["min"], found["x1"]["max"]) == (2, 0.5, 2.5)
    assert (found["taken"]["min"], found["taken"]["max"]) == ("2026-01-01T00:00:00", "2026-01-03T00:00:00")
    assert found["label"]["values"] == [{"value": "tulip", "count": 3}, {"value": "rose", "count": 2}]
    assert await chosen(client, dataset, "taken < '2026-01-02' OR x1 = 2.5") == [NAMES[0], NAMES[2]]


async def test_rows_that_name_no_sample_or_one_twice_are_counted_with_examples(client, dataset):
    body = b"file_name,width\nrose/a.png,1\nnowhere.png,2\nrose/a.png,3\nelsewhere.png,4\n"
    change = await put(client, dataset, body, CSV)
    assert (change["rows"], change["matched"]) == (4, 1)
    assert change["refused"] == [
        {"reason": "unknown_sample", "count": 2, "examples": ["nowhere.png", "elsewhere.png"]},
        {"reason": "duplicate", "count": 1, "examples": ["rose/a.png"]},
    ]
    assert await chosen(client, dataset, "width = 1") == ["rose/a.png"]


async def test_a_column_is_replaced_whole_and_others_stay(client, dataset):
    await put(client, dataset, b"file_name,width,height\nrose/a.png,1,10\nrose/b.png,2,20\n", CSV)
    await put(client, dataset, b"file_name,Width\nrose/b.png,wide\n", CSV)
    found = await listed(client, dataset)
    assert (found["Width"]["type"], found["Width"]["count"], found["height"]["count"]) == ("text", 1, 2)
    assert "width" not in found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"name,width\na,1\n", "neither a column sample_id nor file_name"),
        (b"file_name,label\nrose/a.png,x\n", "no column to add"),
        (b"file_name,width\nnowhere.png,1\n", "none of 1 rows, such as 'nowhere.png' names a sample"),
        (b"file_name,w,W\nrose/a.png,1,2\n", "the same name"),
        (b"file_name,w\nrose/a.png,1,2\n", "cannot be read"),
        (b"file_name,w\nrose/a.png," + b"a" * 5000 + b"\n", "5,000 characters"),
        (b"file_name,w\nrose/a.png,12345678901234567\n", "2^53"),
        (parquet({"file_name": NAMES[:1], "w": [[1, 2]]}), "a column holds text"),
        (parquet({"file_name": NAMES[:1], "w": [float("inf")]}), "infinite"),
        (b"PAR1 but no more", "cannot be read"),
        (b"ARROW1 but no more", "cannot be read"),
        (b"\xff\xff\xff\xffrubbish", "cannot be read"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_and_changes_nothing(client, dataset, body, message):
    before = await listed(client, dataset)
    answer = await client.put(f"/datasets/{dataset['id']}/columns", content=body, headers=TABLE)
    assert answer.status_code == 422
    assert message in answer.json()["detail"]
    assert await listed(client, dataset) == before


async def test_the_folder_of_a_split_is_a_column(client, root):
    for name in ("train/a/1.png", "VAL/a/1.png", "other/1.png"):
        path = root / "parts" / name
        path.parent.mkdir(parents=True)
        path.write_bytes((root / "flowers" / "rose" / "a.png").read_bytes())
    dataset = (await client.post("/datasets", json={"name": "parts", "root": str(root / "parts")})).json()
    assert await chosen(client, dataset, "split = 'train'") == ["train/a/1.png"]
    assert await chosen(client, dataset, "split = 'val'") == ["VAL/a/1.png"]
    assert (await listed(client, dataset))["split"]["count"] == 2


async def test_a_mistake_in_a_filter_is_a_422_that_says_where(client, dataset):
    answer = await client.get(f"/datasets/{dataset['id']}/samples", params={"where": "label = 'é' AND labl = 'x'"})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["position"]) == (422, "invalid_filter", 16)
    assert "did you mean 'label'? Columns: " in problem["detail"]


async def test_pages_of_a_filter_go_on_where_the_last_one_ended(client, dataset):
    params = {"where": "label = 'tulip'", "limit": 2}
    first = (await client.get(f"/datasets/{dataset['id']}/samples", params=params)).json()
    second = (
        await client.get(f"/datasets/{dataset['id']}/samples", params=params | {"cursor": first["next_cursor"]})
    ).json()
    assert [item["id"] for page in (first, second) for item in page["items"]] == NAMES[2:]


async def test_columns_and_tags_survive_a_rescan_and_come_back_with_the_file(client, dataset, root):
    await put(client, dataset, b"file_name,width\nrose/a.png,1\nrose/b.png,2\n", CSV)
    await tag(client, dataset, "keep", {"where": "width > 0"})
    file = root / "flowers" / "rose" / "a.png"
    content = file.read_bytes()
    file.unlink()
    await client.post(f"/datasets/{dataset['id']}/rescan")
    assert await chosen(client, dataset, "width > 0 AND tag = 'keep'") == ["rose/b.png"]
    assert (await listed(client, dataset))["width"]["count"] == 1
    assert (await client.get(f"/datasets/{dataset['id']}/tags")).json() == [{"value": "keep", "count": 1}]
    file.write_bytes(content)
    await client.post(f"/datasets/{dataset['id']}/rescan")
    assert await chosen(client, dataset, "width > 0 AND tag = 'keep'") == ["rose/a.png", "rose/b.png"]


async def test_an_export_has_the_columns_and_tags_and_gives_them_back(client, services, embedded):
    await put(client, embedded, b"file_name,width,word\nrose/a.png,1.5,x\nrose/b.png,2,\n", CSV)
    await tag(client, embedded, "keep", {"sample_ids": ["rose/b.png"]})
    answer = await client.get(f"/datasets/{embedded['id']}/embeddings/export", params={"where": "label = 'rose'"})
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column("sample_id").to_pylist() == ["rose/a.png", "rose/b.png"]
    assert table.select(["width", "word", "tag"]).to_pylist() == [
        {"width": 1.5, "word": "x", "tag": None},
        {"width": 2.0, "word": None, "tag": ["keep"]},
    ]
    for name in ("width", "word"):
        assert (await client.delete(f"/datasets/{embedded['id']}/columns/{name}")).status_code == 204
    change = await put(client, embedded, answer.content)
    assert set(change["columns"]) == {"width", "height", "format", "word", "tag"}
    assert "label" in change["ignored"]
    assert await chosen(client, embedded, "width = 1.5 AND word = 'x'") == ["rose/a.png"]


async def test_the_map_is_filtered_and_a_region_of_it_is_tagged(client, services, embedded):
    url = f"/datasets/{embedded['id']}"
    await client.post(f"{url}/embeddings/reduce")
    await work.reduce(services)  # the i-th sample lies at (i, -i)
    square = [[-0.5, 0.5], [1.5, 0.5], [1.5, -1.5], [-0.5, -1.5]]
    assert await tag(client, embedded, "corner", {"polygon": square}) == {"changed": 2, "selected": 2}
    points = (await client.get(f"{url}/embeddings/coordinates", params={"where": "tag = 'corner'"})).json()
    assert [(point["x"], point["y"]) for point in points] == [(0, 0), (1, -1)]
    both = {"polygon": square, "where": f"file_name = '{points[0]['fileName']}'"}
    assert await tag(client, embedded, "corner", both, "DELETE") == {"changed": 1, "selected": 1}
    answer = await client.post(f"{url}/embeddings/generate", json={"force": True})
    assert answer.status_code == 202
    await work.embed(services)
    assert await chosen(client, embedded, "tag = 'corner'") == [points[1]["sampleId"]]


async def test_tags_are_put_on_and_taken_off_once(client, dataset):
    assert await tag(client, dataset, "keep", {"where": "label = 'rose'"}) == {"changed": 2, "selected": 2}
    assert await tag(client, dataset, "keep", {"sample_ids": [*NAMES[1:3], "nowhere"]}) == {"changed": 1, "selected": 2}
    assert await chosen(client, dataset, "tag = 'keep'") == NAMES[:3]
    assert await chosen(client, dataset, "tag <> 'keep'") == NAMES[3:]
    assert (await listed(client, dataset))["tag"]["values"] == [{"value": "keep", "count": 3}]
    assert (await tag(client, dataset, "keep", {"where": "tag = 'keep' AND label = 'rose'"}, "DELETE"))["changed"] == 2
    answer = await client.delete(f"/datasets/{dataset['id']}/tags/keep")
    assert answer.json() == {"changed": 1, "selected": 1}
    assert (await client.get(f"/datasets/{dataset['id']}/tags")).json() == []


async def test_a_tag_for_nothing_or_without_a_map_is_refused(client, dataset):
    url = f"/datasets/{dataset['id']}/tags/keep"
    assert (await client.post(url, json={})).status_code == 422
    assert (await client.post(url, json={"where": "nothing = 1"})).json()["code"] == "invalid_filter"
    assert (await client.post(url, json={"polygon": [[0, 0], [1, 0], [1, 1]]})).json()["code"] == "no_embeddings"
    assert (await client.post(url, json={"polygon": [[0, 0], [1, 0]]})).status_code == 422


async def test_a_deleted_dataset_takes_its_columns_and_tags_along(client, services, dataset):
    await put(client, dataset, b"file_name,width\nrose/a.png,1\n", CSV)
    await tag(client, dataset, "keep", {"where": "width = 1"})
    await client.delete(f"/datasets/{dataset['id']}")
    with services.writer._database.read() as session:
        for table in ("dataset_columns", "column_numbers", "tags"):
            assert session.q(f"SELECT * FROM {table}") == []


async def values(client, dataset, name):
    answer = await client.get(f"/datasets/{dataset['id']}/columns/{quote(name)}")
    assert answer.status_code == 200, answer.text
    table = pa.ipc.open_stream(answer.content).read_all()
    return dict(zip(table["sample_id"].to_pylist(), table["value"].to_pylist(), strict=True))


async def test_the_values_of_a_column_come_with_the_samples_that_have_one(client, dataset):
    await put(client, dataset, b"file_name,width\nrose/a.png,640\ntulip/c.png,\n", CSV)
    await tag(client, dataset, "keep", {"sample_ids": ["rose/a.png", "rose/b.png"]})
    await tag(client, dataset, "best", {"sample_ids": ["rose/a.png"]})
    assert await values(client, dataset, "width") == {"rose/a.png": 640.0}
    assert await values(client, dataset, "tag") == {"rose/a.png": "best, keep", "rose/b.png": "keep"}
    assert await values(client, dataset, "label") == {name: name.split("/")[0] for name in NAMES}


async def test_a_long_column_comes_page_by_page_whole_and_in_order(client, dataset, monkeypatch):
    monkeypatch.setattr(columns_api, "VALUES_PAGE_ROWS", 2)
    assert list(await values(client, dataset, "file_name")) == NAMES


async def test_a_column_that_is_not_there_has_no_values(client, dataset):
    answer = await client.get(f"/datasets/{dataset['id']}/columns/height")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_region_of_the_map_is_a_filter_that_composes(client, services, embedded):
    await client.post(f"/datasets/{embedded['id']}/embeddings/reduce")
    await work.reduce(services)  # the i-th sample lies at (i, -i)
    region = "inside(-0.5, 0.5, 1.5, 0.5, 1.5, -1.5, -0.5, -1.5)"
    assert await chosen(client, embedded, region) == NAMES[:2]
    assert await chosen(client, embedded, f"NOT {region} AND label = 'tulip'") == NAMES[2:]
    assert await chosen(client, embedded, f"{region} AND inside(0.5, 1, 9, 1, 9, -9, 0.5, -9)") == NAMES[1:2]


@pytest.mark.parametrize(
    ("text", "position", "why"),
    [
        ("inside(1, 2, 3, 4)", 0, "three corners"),
        ("inside(1, 2, 3, 4, 5)", 0, "three corners"),
        ("inside(1, 2, 3, 4, 5, 'six')", 22, "takes the numbers"),
        ("inside(1, 2, 3, 4, 5, label)", 22, "takes the numbers"),
        ("outside(1, 2, 3, 4, 5, 6)", 0, "no function"),
        ("inside(1, 2, 3, 4, 5, 6)", 0, "no map yet"),
    ],
)
async def test_a_region_that_is_none_is_refused_at_its_place(client, dataset, text, position, why):
    answer = await client.get(f"/datasets/{dataset['id']}/samples", params={"where": text})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["position"]) == (422, "invalid_filter", position)
    assert why in problem["detail"]
