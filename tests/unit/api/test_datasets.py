import asyncio

import pytest

from serve_app import sources
from serve_app.errors import StoreUnavailable, Unavailable
from serve_app.store.datasets import Datasets
from tests.unit.api.conftest import png


async def post(client, **body):
    return await client.post("/datasets", json=body)


async def test_a_registered_folder_is_answered_with_its_samples_counted(client, root):
    answer = await post(client, name="flowers", root=str(root / "flowers"))
    assert answer.status_code == 201
    dataset = answer.json()
    assert {key: dataset[key] for key in ("name", "root", "format", "sample_count")} == {
        "name": "flowers",
        "root": str(root / "flowers"),
        "format": "folder",
        "sample_count": 5,
    }
    assert isinstance(dataset["id"], str)
    assert answer.headers["location"] == f"/datasets/{dataset['id']}"
    assert (await client.get(answer.headers["location"])).json() == dataset
    assert (await client.get("/datasets")).json() == [dataset]


async def test_a_taken_name_is_a_conflict_that_names_the_dataset(client, dataset, root):
    answer = await post(client, name="flowers", root=str(root / "flowers" / "rose"))
    assert answer.status_code == 409
    assert answer.json()["code"] == "name_taken"
    assert answer.json()["dataset_id"] == dataset["id"]


async def test_of_two_registrations_at_once_one_wins(client, root):
    answers = await asyncio.gather(*(post(client, name="n", root=str(root / "flowers")) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    [winner] = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert {answer.json()["dataset_id"] for answer in answers if answer.status_code == 409} == {winner}


async def test_a_folder_outside_the_roots_is_forbidden_whether_it_exists_or_not(client, tmp_path):
    (tmp_path / "secret").mkdir()
    answers = [
        await client.post("/datasets", json={"name": "n", "root": path}, headers={"X-Request-ID": "same"})
        for path in (str(tmp_path / "secret"), str(tmp_path / "missing"), "/etc", "../../etc")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1


UNUSABLE = [
    {"name": "n"},
    {"root": "x"},
    {"name": "", "root": "x"},
    {"name": "  ", "root": "x"},
    {"name": "a\nb", "root": "x"},
    {"name": "n" * 201, "root": "x"},
    {"name": 7, "root": "x"},
    {"name": "n", "root": "x", "format": "zip"},
    {"name": "n", "root": "x", "extra": 1},
    {"name": "n", "root": "a\0b"},
    {"name": "n", "root": ["x"]},
    {"name": "n", "root": "ftp://example.org/images"},
    {"name": "n", "root": "x", "annotations": ""},
    {"name": "n", "root": "missing"},
    {"name": "n", "root": "flowers/rose/a.png"},
    [],
    "text",
    None,
]


async def test_an_unusable_registration_is_refused_without_a_trace(client):
    for body in UNUSABLE:
        answer = await client.post("/datasets", json=body)
        assert answer.status_code == 422, body
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await client.get("/datasets")).json() == []


@pytest.mark.parametrize("name", ["embeddings", "'; DROP TABLE datasets; --", "../../etc", 'a"b', "名前", "%s{}$1"])
async def test_any_name_is_kept_verbatim(client, root, name):
    answer = await post(client, name=name, root=str(root / "flowers"))
    assert answer.json()["name"] == name
    assert (await client.get("/datasets")).json()[0]["name"] == name


async def test_a_validation_error_lists_where_and_why_but_never_the_input(client):
    answer = await client.post("/datasets", json={"name": 12345, "root": "x", "secret-option": "secret-value"})
    problem = answer.json()
    assert problem["status"] == 422
    assert problem["code"] == "invalid_request"
    assert {tuple(error["loc"]) for error in problem["errors"]} == {("body", "name"), ("body", "secret-option")}
    assert {key for error in problem["errors"] for key in error} == {"loc", "type", "msg"}
    assert "secret-value" not in answer.text
    assert "12345" not in answer.text


async def test_a_listing_that_fails_half_way_leaves_nothing(client, services, root, monkeypatch):
    [page] = sources.scan(root / "flowers", "folder", None)

    def broken(*args, **kwargs):
        yield page
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr("serve_app.jobs.listing.sources.scan", broken)
    answer = await post(client, name="flowers", root=str(root / "flowers"))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    with services.writer._database.read() as session:
        assert session.q("SELECT * FROM scans") == []
        assert session.q("SELECT * FROM scan_files") == []


async def test_a_client_that_leaves_during_a_listing_leaves_nothing(client, services, root, monkeypatch):
    reached = asyncio.Event()
    call = services.writer.ask

    async def stuck(method, *args, **kwargs):
        result = await call(method, *args, **kwargs)
        if method is Datasets.put_scan:
            reached.set()
            await asyncio.Event().wait()
        return result

    monkeypatch.setattr(services.writer, "ask", stuck)
    request = asyncio.create_task(post(client, name="flowers", root=str(root / "flowers")))
    await reached.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    with services.writer._database.read() as session:
        assert session.q("SELECT * FROM scans") == []


async def test_a_rescan_tells_what_changed_and_samples_keep_their_ids(client, dataset, root):
    before = (await client.get(f"/datasets/{dataset['id']}/samples")).json()["items"]
    folder = root / "flowers"
    (folder / "rose" / "new.png").write_bytes(png((1, 2, 3)))
    (folder / "tulip" / "c.png").write_bytes(png((4, 5, 6), size=(50, 50)))
    (folder / "tulip" / "broken.png").unlink()
    answer = await client.post(f"/datasets/{dataset['id']}/rescan")
    assert answer.status_code == 200
    assert answer.json() == {"added": 1, "changed": 1, "removed": 1}
    after = (await client.get(f"/datasets/{dataset['id']}/samples")).json()["items"]
    assert {s["id"] for s in after} - {s["id"] for s in before} == {"rose/new.png"}
    assert {s["id"] for s in before} - {s["id"] for s in after} == {"tulip/broken.png"}


async def test_samples_come_in_pages_that_join_to_the_whole(client, dataset):
    path = f"/datasets/{dataset['id']}/samples"
    whole = (await client.get(path)).json()
    assert whole["next_cursor"] is None
    assert whole["items"][0] == {"id": "rose/a.png", "file_name": "rose/a.png", "label": "rose"}
    joined, cursor = [], None
    while True:
        page = (await client.get(path, params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        assert len(page["items"]) <= 2
        joined += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert joined == whole["items"]


async def test_a_page_of_samples_never_follows_one_of_an_earlier_listing(client, dataset, root):
    """After a rescan the next page left samples out or gave them twice."""
    path = f"/datasets/{dataset['id']}/samples"
    cursor = (await client.get(path, params={"limit": 2})).json()["next_cursor"]
    assert (await client.get(path, params={"limit": 2, "cursor": cursor})).status_code == 200
    (root / "flowers" / "rose" / "a.png").unlink()
    assert (await client.post(f"/datasets/{dataset['id']}/rescan")).json()["removed"] == 1

    answer = await client.get(path, params={"limit": 2, "cursor": cursor})
    assert answer.status_code == 409
    assert answer.json()["detail"] == "The dataset was rescanned meanwhile; list its samples anew."


async def test_a_limit_is_a_whole_number_within_bounds(client, dataset):
    for limit in ["0", "-1", "10001", "1e3", "1_0", " 5", "5.0", "٣", "9" * 5000, "", "NaN", "+5"]:
        answer = await client.get(f"/datasets/{dataset['id']}/samples", params={"limit": limit})
        assert answer.status_code == 422, limit
        assert answer.json()["errors"][0]["loc"] == ["query", "limit"]


async def test_a_cursor_of_ones_own_making_is_refused(client, dataset):
    answer = await client.get(f"/datasets/{dataset['id']}/samples", params={"cursor": "'; DROP TABLE"})
    assert answer.status_code == 422


async def test_a_deleted_dataset_is_gone_and_its_files_are_not(client, dataset, root):
    assert (await client.delete(f"/datasets/{dataset['id']}")).status_code == 204
    assert (await client.get(f"/datasets/{dataset['id']}")).status_code == 404
    assert (await client.delete(f"/datasets/{dataset['id']}")).status_code == 404
    assert (root / "flowers" / "rose" / "a.png").exists()


async def test_the_searcher_forgets_a_deleted_dataset(client, dataset, services, monkeypatch):
    asked = []

    async def ask(question, *args):
        asked.append((question.__name__, *args))
        raise Unavailable("the searcher is away, which keeps nobody from deleting")

    monkeypatch.setattr(services.searcher, "ask", ask)
    assert (await client.delete(f"/datasets/{dataset['id']}")).status_code == 204
    assert asked == [("forget", dataset["id"])]


@pytest.mark.parametrize("path", ["", "/rescan"])
async def test_a_running_job_protects_its_dataset(client, dataset, path):
    job_id = (await client.post(f"/datasets/{dataset['id']}/embeddings/generate")).json()["job_id"]
    answer = await client.request("POST" if path else "DELETE", f"/datasets/{dataset['id']}{path}")
    assert answer.status_code == 409
    assert answer.json()["code"] == "job_running"
    assert answer.json()["job_id"] == job_id


UNKNOWN = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/rescan"),
    ("GET", "/samples"),
    ("GET", "/samples/a/image"),
    ("GET", "/samples/a/thumbnail"),
    ("POST", "/embeddings/generate"),
    ("POST", "/embeddings/reduce"),
    ("POST", "/embeddings/cancel"),
    ("GET", "/embeddings/status"),
    ("GET", "/embeddings/skipped"),
    ("GET", "/embeddings/progress"),
    ("GET", "/embeddings/reduce/progress"),
    ("GET", "/embeddings/coordinates"),
    ("GET", "/embeddings/export"),
    ("GET", "/similarity/a"),
    ("GET", "/duplicates"),
    ("GET", "/outliers"),
    ("GET", "/diverse"),
]


@pytest.mark.parametrize(("method", "path"), UNKNOWN, ids=[f"{m} {p}" for m, p in UNKNOWN])
async def test_an_unknown_dataset_is_not_found(client, method, path):
    for dataset_id in ("no-such-dataset", "%27%20OR%201=1", "%00"):
        answer = await client.request(method, f"/datasets/{dataset_id}{path}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "dataset_not_found"
