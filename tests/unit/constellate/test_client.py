"""The Python client that people use, against the real application."""

import asyncio
import inspect
import itertools
import pickle
import re
import threading

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from constellate import AsyncConstellate, Constellate, JobFailed, Progress, Refused
from constellate.routes import Routes
from serve_app import sources
from serve_app.api import create_app

PROTOCOLS_OF_OTHERS = {
    "GET /v1/describe",
    "GET /v1/models",
    "POST /v1/embed/images/bytes",
    "POST /v1/embed/texts",
    "POST /v1/embeddings",
}
FOR_BROWSERS = {
    "GET /",
    "GET /favicon.ico",
    "GET /folders",
    "GET /datasets/{dataset_id}/columns/{name}",
    "POST /datasets/{dataset_id}/sprites",
    "GET /datasets/{dataset_id}/samples/{sample_id}/image",
    "GET /datasets/{dataset_id}/samples/{sample_id}/thumbnail",
    "POST /datasets/{dataset_id}/graph/cancel",  # `cancel` ends a job of any kind
}
"""Routes that the client leaves out on purpose."""


@pytest.fixture
def client(service):
    with Constellate(service.settings.url) as client:
        yield client


def test_errors_reach_another_process_whole():
    failed = pickle.loads(pickle.dumps(JobFailed(Progress("j1", "error", 1, 2, 0, "no weights"))))
    assert (str(failed), failed.progress.processed) == ("job j1 ended as error: no weights", 1)
    refused = pickle.loads(pickle.dumps(Refused(409, {"detail": "a job runs", "code": "job_running", "job_id": "j1"})))
    assert (str(refused), refused.status, refused.code) == ("a job runs", 409, "job_running")
    assert refused.problem["job_id"] == "j1"


def test_a_program_makes_the_graph_that_a_large_set_needs(live, flowers):
    live.max_pairwise_rows = 3
    live.start()
    with Constellate(live.settings.url) as client:
        found = client.embed_folder(flowers, with_map=False)
        with pytest.raises(Refused) as refused:
            client.outliers(found.id, k=2, limit=3)
        assert (refused.value.code, refused.value.problem["k"]) == ("graph_needed", 15)
        states = []
        assert client.make_graph(found.id, k=2, on_progress=states.append).processed == 4
        assert states[-1].status == "complete"
        assert len(client.outliers(found.id, k=2, limit=3)) == 3


def test_a_folder_becomes_vectors_and_a_map_in_one_call(client, flowers):
    states = []
    found = client.embed_folder(flowers, on_progress=states.append)
    assert (found.dataset["name"], found.embeddings["embedding_count"], found.embeddings["has_reduction"]) == (
        "flowers",
        4,
        True,
    )
    assert [skip["file_name"] for skip in found.skipped] == ["tulip/broken.png"]
    ends = [state for state in states if state.is_terminal]
    # The files are listed, then embedded, and those with vectors placed.
    assert [(state.status, state.processed) for state in ends] == [("complete", 5), ("complete", 5), ("complete", 4)]
    assert len(client.coordinates(found.id)) == 4
    assert [sample["label"] for sample in client.samples(found.id)] == ["rose", "rose", "tulip", "tulip", "tulip"]
    (flowers / "tulip" / "broken.png").unlink()
    again = client.embed_folder(str(flowers), with_map=False)
    assert (again.id, again.skipped, again.embeddings["has_reduction"]) == (found.id, [], False)
    client.delete(again.id)
    assert client.datasets() == []


def test_a_job_of_the_folder_that_runs_is_waited_for(service, client, flowers):
    gate = service.embedder.gate = asyncio.Event()
    dataset = client.register("flowers", flowers)
    first = client.generate(dataset["id"])
    told = []

    def go_on(state):
        told.append(state)
        gate.set()

    client.embed_folder(flowers, on_progress=go_on)
    assert told[0].job_id == first
    assert len({state.job_id for state in told}) == 4  # after it come a rescan, vectors and a map


def test_a_job_that_ends_badly_is_an_error_with_its_last_state(service, client, flowers):
    for path in flowers.rglob("*.png"):
        path.write_bytes(b"not an image")
    with pytest.raises(JobFailed, match="no_valid_images") as failed:
        client.embed_folder(flowers)
    assert (failed.value.progress.status, failed.value.progress.skipped) == ("error", 5)


def test_a_folder_becomes_a_dataset_with_progress_and_is_listed_again_afterwards(client, flowers):
    states = []
    dataset = client.register_folder(flowers, on_progress=states.append)
    assert (states[-1].status, states[-1].message, dataset["sample_count"]) == ("complete", "Registered 5 images", 5)
    (flowers / "tulip" / "broken.png").unlink()
    again = client.register_folder(flowers, on_progress=states.append)
    assert (states[-1].message, again["id"], again["sample_count"]) == ("1 removed", dataset["id"], 4)


def test_what_bulk_wrote_is_embedded_without_a_model(service, client, flowers):
    out = flowers.parent / "vectors"
    out.mkdir()
    names = ["rose/a.png", "rose/b.png", "tulip/c.png"]
    marks = {"source": str(flowers), "inputs": "1", "space_key": "s", "model_name": "mine"}
    table = pa.table({"file_name": names, "vector": list(np.eye(3, dtype=np.float32) + 1)})
    pq.write_table(table.replace_schema_metadata(marks), out / "part-00000.parquet")
    states = []
    found = client.embed_folder(out, on_progress=states.append)
    assert (found.dataset["format"], found.embeddings["embedding_count"]) == ("bulk", 3)
    assert [state.message for state in states if state.is_terminal][:2] == [
        "Registered 3 images",
        "Imported vectors of 3 images",
    ]
    assert found.embeddings["has_reduction"]
    assert client.embed_folder(flowers, with_map=False).id != found.id  # the images are a dataset of their own
    assert client.register_folder(out)["id"] == found.id
    *_, last = client.follow(found.id, client.generate(found.id), "embed")
    assert (last.status, client.embeddings(found.id)["model_name"]) == ("complete", "dinov2-base")
    again = client.embed_folder(out)
    assert (again.id, again.embeddings["model_name"], again.embeddings["has_reduction"]) == (found.id, "mine", True)
    with pytest.raises(ValueError, match="constellate bulk"):
        client.embed_folder(out, model="dinov2-base")


def test_a_registration_that_an_interrupted_program_began_is_waited_for(client, flowers, monkeypatch):
    gate = threading.Event()
    scan = sources.scan
    monkeypatch.setattr(sources, "scan", lambda *args, **kwargs: gate.wait(60) and scan(*args, **kwargs))
    started = client.start_register("flowers", flowers)
    with pytest.raises(Refused) as refused:
        client.start_register("flowers", flowers)
    assert refused.value.problem["job_id"] == started.job_id
    told = []

    def go_on(state):
        told.append(state)
        gate.set()

    assert client.register_folder(flowers, on_progress=go_on)["id"] == started.dataset_id
    assert told[0].job_id == started.job_id


def test_what_the_listing_finds_is_an_error_with_the_services_reason(client, flowers):
    (flowers / "list.csv").write_text("colour\nred\n")
    with pytest.raises(JobFailed, match=r"invalid_request: 'list\.csv' has no column 'file_name'"):
        client.register_folder(flowers / "list.csv")


def test_a_job_that_is_over_cannot_be_cancelled(client, flowers):
    started = client.start_register("flowers", flowers)
    list(client.follow(started.dataset_id, started.job_id, "register"))
    with pytest.raises(Refused) as refused:
        client.cancel_job(started.job_id)
    assert refused.value.code == "nothing_running"


def test_a_folder_outside_the_roots_is_refused_with_the_services_reason(client, tmp_path):
    with pytest.raises(Refused) as refused:
        client.embed_folder(tmp_path)
    assert refused.value.code == "outside_roots"


def test_vectors_from_elsewhere_replace_the_datasets(client, flowers, tmp_path):
    dataset = client.register("flowers", flowers)
    ids = [sample["id"] for sample in client.samples(dataset["id"])]
    vectors = np.eye(5, 3, dtype=np.float32) + 1
    pq.write_table(pa.table({"sample_id": ids, "vector": list(vectors)}), tmp_path / "v.parquet")
    job_id = client.import_vectors(dataset["id"], tmp_path / "v.parquet", space_key="s", model_name="m")
    *_, last = client.follow(dataset["id"], job_id, "import")
    assert (last.status, last.processed, last.message) == ("complete", 5, "Imported vectors of 5 images")
    with pytest.raises(Refused, match="space_key"):
        client.import_vectors(dataset["id"], tmp_path / "v.parquet", model_name="m")


async def test_the_same_can_be_awaited(service, flowers, tmp_path):
    states = []
    here = threading.get_ident()
    async with AsyncConstellate(service.settings.url) as client:
        found = await client.embed_folder(flowers, on_progress=lambda s: states.append((s, threading.get_ident())))
        assert found.embeddings["embedding_count"] == 4
        for further in (
            client.register_folder(flowers, on_progress=lambda s: states.append((s, threading.get_ident()))),
            client.make_graph(found.id, k=2, on_progress=lambda s: states.append((s, threading.get_ident()))),
        ):
            n_before = len(states)
            await further
            assert len(states) > n_before
        assert {ident for _, ident in states} == {here}
        assert states[-1][0].is_terminal
        job_id = await client.generate(found.id, force=True)
        followed = [state async for state in client.follow(found.id, job_id, "embed")]
        assert (followed[-1].status, followed[-1].processed) == ("complete", 5)
        assert [sample["label"] async for sample in client.samples(found.id)].count("rose") == 2
        similar = await asyncio.gather(*(client.similar(found.id, "rose/a.png", limit=n) for n in range(1, 4)))
        assert [len(items) for items in similar] == [1, 2, 3]
        await client.export(found.id, tmp_path / "f.parquet")
        with pytest.raises(Refused) as refused:
            await client.cancel(found.id)
        assert refused.value.status == 409


async def test_closing_ends_a_stream_that_waits(live, flowers):
    live.hold()
    live.start()
    client = AsyncConstellate(live.settings.url)
    dataset = await client.register("flowers", flowers)
    stream = client.follow(dataset["id"], await client.generate(dataset["id"]), "embed")
    assert (await anext(stream)).status == "running"
    waiting = asyncio.ensure_future(anext(stream))
    assert not (await asyncio.wait({waiting}, timeout=0.2))[0]
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.wait_for(waiting, 60)


def test_the_awaited_client_has_every_method_of_the_other():
    def public(kind):
        return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}

    assert public(AsyncConstellate) == public(Constellate)


def sent_by_every_method(tmp_path):
    """(method name, request) of each public method of `Routes`, called with everything it takes."""
    requests = []

    def answer(request):
        request.read()
        requests.append(request)
        body = {"items": [], "groups": [], "phrases": [], "job_id": "j", "service": "constellate", "changed": 0}
        return httpx.Response(200, json=[] if request.url.path.endswith("/tags") else body)

    client = Routes("http://127.0.0.1:8000", transport=httpx.MockTransport(answer))
    file = tmp_path / "file"
    file.write_bytes(b"x")
    arguments = {
        "name": "n", "root": tmp_path, "image": file, "file": file, "target": tmp_path / "out", "kind": "embed",
        "limit": 3, "threshold": 0.5, "k": 2, "n": 2, "model_name": "m", "force": True, "space_key": "s",
        "dataset_id": "d", "sample_id": "a/b", "job_id": "j", "format": "arrow", "last_event": "e",
        "where": "label = 'cat'", "tag": "keep", "choice": "label = 'cat'", "column": "width", "with_vectors": True,
        "notify_url": "https://h/hook", "phrases": ["cat", "dog"], "templates": ["a {}"], "text": None, "query": file,
        "model": "m", "redraw": True,
        "min_size": 5, "keep": "first", "labelled": "tag = 'done'", "balance": "label", "finding": "diverse",
        "params": "label = 'cat'",
    }  # fmt: skip
    for name, method in inspect.getmembers(Routes, inspect.isfunction):
        if name.startswith("_") or name == "close":
            continue
        wanted = list(inspect.signature(method).parameters)[1:]
        kinds = ("embed", "reduce", "graph") if "kind" in wanted else ("embed",)
        formats = ("arrow", "csv") if "format" in wanted else ("",)
        for kind, format in itertools.product(kinds, formats):
            before = len(requests)
            given = {p: arguments[p] for p in wanted} | {
                p: v for p, v in (("kind", kind), ("format", format)) if p in wanted
            }
            if "choice" in given:  # which samples, by one of several names
                given["where"] = given.pop("choice")
            if "params" in given:  # any that the route takes
                given["where"] = given.pop("params")
            result = method(client, **given)
            if inspect.isgenerator(result):
                list(result)
            assert len(requests) > before, f"{name} sends nothing"
            yield from ((name, request) for request in requests[before:])


def test_every_method_speaks_a_route_of_the_document_and_every_other_route_is_left_out_on_purpose(settings, tmp_path):
    document = create_app(settings, lambda: None).openapi()
    routes = {
        f"{verb.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for verb, operation in operations.items()
    }

    def find(request):
        for route, operation in routes.items():
            verb, path = route.split(" ")
            pattern = re.sub(r"\{[^}]*\}", "[^/]+", path.replace("{sample_id}", ".+"))
            if verb == request.method and re.fullmatch(pattern, request.url.path):
                return route, operation
        raise AssertionError(f"no route for {request.method} {request.url.path}")

    spoken = set()
    for name, request in sent_by_every_method(tmp_path):
        route, operation = find(request)
        spoken.add(route)
        known = {p["name"] for p in operation.get("parameters", []) if p["in"] == "query"}
        assert set(request.url.params) <= known, f"{name}: {route} does not take {set(request.url.params) - known}"
        if request.content:
            media_type = request.headers["content-type"].partition(";")[0]
            body = operation["requestBody"]["content"]
            assert media_type in body, f"{name}: {route} does not take {media_type}"
    others = set(routes) - spoken
    assert others <= PROTOCOLS_OF_OTHERS | FOR_BROWSERS, "routes that the client lacks"
    assert not spoken & (PROTOCOLS_OF_OTHERS | FOR_BROWSERS)
