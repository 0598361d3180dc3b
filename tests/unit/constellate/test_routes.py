import http.server
import json
import socket
import threading

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import constellate
from constellate.following import follow
from constellate.routes import Routes
from constellate.wire import NothingThere, Refused, Unreachable


@pytest.fixture
def client(live):
    live.start()
    with Routes(live.settings.url) as client:
        yield client


@pytest.fixture
def dataset(client, flowers):
    """The folder `flowers`, registered and embedded."""
    dataset = client.register("flowers", flowers)
    list(follow(client, dataset["id"], client.generate(dataset["id"]), "embed"))
    return dataset


def test_a_folder_becomes_vectors_a_map_and_a_file(client, flowers, tmp_path):
    dataset = client.register("flowers", flowers)
    assert (dataset["sample_count"], dataset["format"]) == (5, "folder")
    states = list(follow(client, dataset["id"], client.generate(dataset["id"]), "embed"))
    assert (states[-1].status, states[-1].processed, states[-1].skipped) == ("complete", 5, 1)
    assert [(s["file_name"], s["reason"]) for s in client.skipped(dataset["id"])] == [
        ("tulip/broken.png", "unidentified")
    ]
    states = list(follow(client, dataset["id"], client.reduce(dataset["id"]), "reduce"))
    assert states[-1].status == "complete"
    found = client.embeddings(dataset["id"])
    assert (found["embedding_count"], found["model_name"], found["has_reduction"]) == (4, "dinov2-base", True)
    client.export(dataset["id"], tmp_path / "flowers.parquet")
    rows = pq.read_table(tmp_path / "flowers.parquet")
    assert set(rows.column_names) >= {"sample_id", "file_name", "label", "model_name", "vector", "x", "y"}
    assert rows["label"].to_pylist() == ["rose", "rose", "tulip", "tulip"]


def test_an_arrow_export_is_an_arrow_stream(client, dataset, tmp_path):
    client.export(dataset["id"], tmp_path / "flowers.arrow", format="arrow")
    assert pa.ipc.open_stream(tmp_path / "flowers.arrow").read_all().num_rows == 4


def test_a_dataset_without_vectors_is_handed_over_as_csv_and_coco(client, flowers, tmp_path):
    dataset = client.register("flowers", flowers)
    client.export(dataset["id"], tmp_path / "f.csv", format="csv", where="label = 'rose'")
    assert (tmp_path / "f.csv").read_text().splitlines()[0] == '"sample_id","file_name","label"'
    client.export(dataset["id"], tmp_path / "f.json", format="coco")
    assert len(json.loads((tmp_path / "f.json").read_text())["images"]) == 5


def test_a_refused_export_leaves_no_file_and_an_older_one_as_it_was(client, flowers, tmp_path):
    target = tmp_path / "flowers.parquet"
    target.write_text("older")
    with pytest.raises(Refused) as refused:
        client.export(client.register("flowers", flowers)["id"], target)
    assert (refused.value.status, refused.value.code) == (400, "no_embeddings")
    assert target.read_text() == "older"
    assert sorted(tmp_path.glob("*.part")) == sorted(tmp_path.glob(".*.part")) == []


def test_an_export_that_breaks_off_leaves_no_file(tmp_path):
    class Broken(httpx.SyncByteStream):
        def __iter__(self):
            yield b"PAR1"
            raise httpx.ReadError("connection lost")

    client = Routes("http://s", transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Broken())))
    with pytest.raises(Unreachable, match="connection lost"):
        client.export("d", tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_comes_with_the_dataset_that_has_it(client, flowers, tmp_path):
    dataset = client.register("flowers", flowers)
    with pytest.raises(Refused) as refused:
        client.register("flowers", flowers)
    assert (refused.value.status, refused.value.problem["dataset_id"]) == (409, dataset["id"])


def test_a_running_job_forbids_another_and_can_be_cancelled(live, flowers):
    live.hold()
    live.start()
    with Routes(live.settings.url) as client:
        dataset = client.register("flowers", flowers)
        job_id = client.generate(dataset["id"])
        with pytest.raises(Refused) as refused:
            client.generate(dataset["id"])
        assert refused.value.problem["job_id"] == job_id
        client.cancel(dataset["id"])
        assert client.job(job_id)["status"] == "cancelled"
        assert [job["id"] for job in client.jobs(limit=5)] == [job_id]
        with pytest.raises(Refused) as refused:
            client.cancel(dataset["id"])
        assert refused.value.status == 409


def test_questions_about_similarity_are_answered(client, dataset, flowers):
    found = client.search(dataset["id"], flowers / "rose" / "a.png", limit=2)
    assert (found[0]["file_name"], found[0]["label"], round(found[0]["score"], 4)) == ("rose/a.png", "rose", 1.0)
    neighbours = client.similar(dataset["id"], found[0]["sample_id"], limit=3)
    assert len(neighbours) == 3
    assert "rose/a.png" not in [n["file_name"] for n in neighbours]
    assert client.duplicates(dataset["id"], threshold=0.99) == []
    assert len(client.outliers(dataset["id"], k=2, limit=3)) == 3
    assert len(client.diverse(dataset["id"], n=2)) == 2


def test_words_are_sent_as_json_and_a_search_is_by_one_thing():
    seen = []

    def answer(request):
        seen.append((request.url.path, dict(request.url.params), json.loads(request.content)))
        return httpx.Response(200, json={"items": [{"file_name": "a.png"}], "notices": []})

    client = Routes("http://s", transport=httpx.MockTransport(answer))
    found = client.search("d", text="a red chair", limit=3, where="label = 'x'")
    assert [n["file_name"] for n in found] == ["a.png"]
    assert seen == [("/datasets/d/search", {"limit": "3", "where": "label = 'x'"}, {"text": "a red chair"})]
    for query in ({}, {"image": "a.png", "text": "a chair"}):
        with pytest.raises(ValueError, match="image or by a text"):
            client.search("d", **query, limit=3)


def test_a_text_that_was_cut_is_told_with_what_was_found():
    answers = {
        "search": {"items": [{"file_name": "a.png"}], "notices": ["it was cut"]},
        "labels": {"phrases": [{"phrase": "a", "count": 2}], "notices": ["'a' was cut"]},
    }
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answers[request.url.path.split("/")[-1]]))
    client = Routes("http://s", transport=transport)
    found, labelled = client.search("d", text="long", limit=3), client.label("d", ["a", "b"])
    assert (type(found), type(labelled)) == (constellate.Found, constellate.Labelled)
    assert ([n["file_name"] for n in found], found.notices) == (["a.png"], ["it was cut"])
    assert (labelled, labelled.notices) == ({"a": 2}, ["'a' was cut"])


def test_words_are_refused_where_the_model_takes_no_text(client, dataset):
    with pytest.raises(Refused, match="images only") as refused:
        client.search(dataset["id"], text="a rose", limit=3)
    assert refused.value.status == 409


def test_a_sample_id_with_any_character_is_found(client, dataset):
    odd = next(n for n in client.diverse(dataset["id"], n=10) if "é" in n["file_name"])
    assert len(client.similar(dataset["id"], odd["sample_id"], limit=10)) == 3


def test_skips_are_read_page_by_page():
    pages = {"": (["a", "b"], "2"), "2": (["c"], None)}

    def answer(request):
        names, cursor = pages[request.url.params.get("cursor", "")]
        return httpx.Response(200, json={"items": [{"file_name": name} for name in names], "next_cursor": cursor})

    client = Routes("http://s", transport=httpx.MockTransport(answer))
    assert [skip["file_name"] for skip in client.skipped("d")] == ["a", "b", "c"]


def test_the_key_goes_with_every_request():
    seen = []

    def answer(request):
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json=[])

    Routes("http://s", api_key="k", transport=httpx.MockTransport(answer)).datasets()
    assert seen == ["Bearer k"]


def test_our_service_is_recognised(client):
    client.check()
    client.ready()


def test_where_nobody_listens_nothing_is_there():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(NothingThere, match=f"no service answers at http://127.0.0.1:{port}"):
        Routes(f"http://127.0.0.1:{port}").check()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "ok"}'], ids=["no JSON", "a list", "another service"])
def test_another_program_on_the_port_is_named_as_such(body):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(Unreachable, match="is not Constellate"):
            Routes(f"http://127.0.0.1:{server.server_port}").check()


def test_an_error_without_a_problem_body_still_says_its_status():
    client = Routes("http://s", transport=httpx.MockTransport(lambda _: httpx.Response(502, text="<html>bad gateway")))
    with pytest.raises(Refused, match="HTTP status 502"):
        client.datasets()


def test_a_problem_says_its_detail_and_code():
    problem = {"status": 503, "detail": "the writer is away", "code": "store_unavailable"}
    client = Routes("http://s", transport=httpx.MockTransport(lambda _: httpx.Response(503, text=json.dumps(problem))))
    with pytest.raises(Refused, match="the writer is away") as refused:
        client.datasets()
    assert refused.value.code == "store_unavailable"


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.embeddings("d", model="m"),
        lambda client: client.delete_embeddings("d", "m"),
        lambda client: list(client.samples("d", model="m")),
        lambda client: client.label("d", ["a", "b"], model="m"),
        lambda client: client.tag("d", "t", polygon=[[0, 0], [0, 1], [1, 0]], model="m"),
        lambda client: client.untag("d", "t", model="m"),
        lambda client: client.reduce("d", model="m"),
        lambda client: client.graph("d", model="m"),
        lambda client: client.coordinates("d", model="m"),
        lambda client: client.similar("d", "a.png", limit=1, model="m"),
        lambda client: client.search("d", text="a chair", limit=1, model="m"),
        lambda client: client.search("d", __file__, limit=1, model="m"),
        lambda client: client.duplicates("d", threshold=0.9, model="m"),
        lambda client: client.outliers("d", k=1, limit=1, model="m"),
        lambda client: client.diverse("d", n=1, model="m"),
        lambda client: client.twins("d", model="m"),
        lambda client: client.leaks("d", model="m"),
        lambda client: client.mislabeled("d", model="m"),
        lambda client: client.clusters("d", model="m"),
        lambda client: client.put_clusters("d", model="m"),
    ],
)
def test_the_model_of_a_set_is_sent_in_the_address(ask):
    seen = []

    def answer(request):
        seen.append(request)
        return httpx.Response(200, json={"items": [], "groups": [], "phrases": [], "changed": 0, "job_id": "j"})

    ask(Routes("http://s", transport=httpx.MockTransport(answer)))
    [request] = seen
    assert request.url.params["model"] == "m"
    if request.headers.get("content-type") == "application/json":
        assert "model" not in json.loads(request.content)


def test_an_export_asks_for_the_set_that_is_named(client, dataset, tmp_path):
    client.export(dataset["id"], tmp_path / "x.parquet", model="dinov2-base")
    with pytest.raises(Refused, match="'dinov2-base'"):
        client.export(dataset["id"], tmp_path / "x.parquet", model="unheard of")


def test_findings_are_asked_and_saved(client, dataset, flowers, tmp_path):
    of = dataset["id"]
    [[kept, dropped]] = client.twins(of, threshold=0.01, keep="first", where="label = 'rose'") or [[None, None]]
    assert kept is None or (kept["action"], dropped["action"]) == ("keep", "drop")
    assert client.leaks(of, column="label", threshold=1) == []
    assert all(item["label"] != item["suggested_label"] for item in client.mislabeled(of))
    assert client.clusters(of) | {"method": ""} == {"method": "", "noise": 4, "items": []}
    assert client.put_clusters(of, column="group") == []
    assert {n["label"] for n in client.diverse(of, n=2, balance="label")} == {"rose", "tulip"}
    assert {n["label"] for n in client.diverse(of, n=9, labelled="label = 'rose'")} == {"tulip"}
    client.save_plan(of, "diverse", tmp_path / "next.parquet", n=3)
    assert pq.read_table(tmp_path / "next.parquet").num_rows == 3
    with pytest.raises(Refused, match="no column"):
        client.save_plan(of, "leaks", tmp_path / "leaks.csv", column="nope")
    assert not (tmp_path / "leaks.csv").exists()
