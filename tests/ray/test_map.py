"""Reduction, coordinates and neighbours on a real cluster."""

import io
import math
import signal

import psutil
import pyarrow.ipc as ipc
import pytest
from ray.util.state import list_actors

from tests.faults.wait import until
from tests.ray.client import PATIENCE_S, embed, export_table, follow, generate, reduce, register
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder, make_photograph

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("n_images", [1, 2, 3, 10])
def test_a_map_of_few_images_places_every_one(service: Service, n_images: int):
    root = make_folder(service.roots / f"map-{n_images}", n_images=n_images)
    dataset_id, _ = embed(service.http, root)
    assert reduce(service.http, dataset_id)["status"] == "complete"
    points = service.http.get(f"/datasets/{dataset_id}/embeddings/coordinates").json()
    assert len(points) == n_images
    assert all(math.isfinite(point["x"]) and math.isfinite(point["y"]) for point in points)
    assert set(points[0]) == {"sampleId", "x", "y", "fileName", "label", "thumbnailPath"}
    assert service.http.get(points[0]["thumbnailPath"]).headers["content-type"].startswith("image/")


def test_an_empty_dataset_completes_with_nothing(service: Service):
    root = service.roots / "nothing"
    root.mkdir()
    dataset_id = register(service.http, root)
    answer = service.http.post(f"/datasets/{dataset_id}/embeddings/reduce", json={})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "No embeddings found. Generate embeddings first."
    assert service.http.get(f"/datasets/{dataset_id}/embeddings/coordinates").json() == []


def test_json_arrow_and_export_give_the_same_points(service: Service):
    root = make_folder(service.roots / "points", n_images=40)
    dataset_id, _ = embed(service.http, root)
    reduce(service.http, dataset_id, n_neighbors=5)
    url = f"/datasets/{dataset_id}/embeddings/coordinates"
    rows = service.http.get(url).json()
    arrow = service.http.get(url, headers={"Accept": "application/vnd.apache.arrow.stream"})
    table = ipc.open_stream(io.BytesIO(arrow.content)).read_all().to_pylist()
    exported = export_table(service.http, dataset_id).select(["sample_id", "x", "y"]).to_pylist()
    expected = {row["sampleId"]: (row["x"], row["y"]) for row in rows}
    assert len(expected) == 40
    assert {row["sample_id"]: (row["x"], row["y"]) for row in table} == expected
    assert {row["sample_id"]: (row["x"], row["y"]) for row in exported} == expected


def test_a_graph_is_made_in_the_reducer_kept_and_asked_again(service: Service):
    root = make_folder(service.roots / "graph", n_images=12)
    dataset_id, _ = embed(service.http, root)
    for k in (5, 4):
        begun = service.http.post(f"/datasets/{dataset_id}/graph", json={"k": k})
        assert begun.status_code == 202, begun.text
        with service.http.stream("GET", f"/datasets/{dataset_id}/graph/progress", timeout=PATIENCE_S) as stream:
            text = stream.read().decode()
        assert begun.json()["job_id"] in text
        job = service.http.get(begun.headers["location"]).json()
        assert (job["kind"], job["status"], job["processed"], job["total"]) == ("graph", "complete", 12, 12)
        assert job["message"] == "Found 5 neighbours of each of 12 images"


def test_the_same_seed_gives_the_same_map_and_new_vectors_take_it_away(service: Service):
    root = make_folder(service.roots / "seed", n_images=30)
    dataset_id, _ = embed(service.http, root)
    url = f"/datasets/{dataset_id}/embeddings/coordinates"
    reduce(service.http, dataset_id)
    first = service.http.get(url).json()
    reduce(service.http, dataset_id)
    assert service.http.get(url).json() == first
    generate(service.http, dataset_id, force=True)
    from tests.ray.client import finish

    finish(service.http, dataset_id)
    assert service.http.get(url).json() == []
    assert service.http.get(f"/datasets/{dataset_id}/embeddings/status").json()["has_reduction"] is False


def fit_process() -> psutil.Process:
    """The one process that lays maps out: a child of the one reducer."""
    [reducer] = [actor for actor in list_actors(filters=[("state", "=", "ALIVE")]) if "Reducer#" in (actor.name or "")]
    children = psutil.Process(reducer.pid).children()
    [fit] = [child for child in children if "multiprocessing.spawn" in " ".join(child.cmdline())]
    return fit


def test_a_cancelled_map_ends_its_process_and_the_next_map_waits_for_nothing(service: Service):
    http = service.http
    dataset_id, _ = embed(http, make_folder(service.roots / "cancelled-map", n_images=10))
    reduce(http, dataset_id)
    fit = fit_process()
    fit.send_signal(signal.SIGSTOP)  # by itself it will never end, so whoever waits for it waits for ever
    assert http.post(f"/datasets/{dataset_id}/embeddings/reduce", json={}).status_code == 202
    for event in follow(http, dataset_id, "reduce/progress"):
        if event["status"] == "fitting":
            assert http.post(f"/datasets/{dataset_id}/embeddings/cancel").status_code == 202
    assert event["status"] == "cancelled"
    until(lambda: not fit.is_running() or fit.status() == psutil.STATUS_ZOMBIE)

    assert reduce(http, dataset_id)["status"] == "complete"
    assert fit_process().pid != fit.pid


def test_neighbours_duplicates_and_search_by_upload(service: Service):
    root = make_folder(service.roots / "search", n_images=20)
    twin = make_photograph(root / "twin.png", 4)  # the same picture as cat/0004.png
    dataset_id, _ = embed(service.http, root)
    similar = service.http.get(f"/datasets/{dataset_id}/similarity/cat/0004.png", params={"limit": 3}).json()["items"]
    assert similar[0]["sample_id"] == "twin.png"
    assert similar[0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert [item["score"] for item in similar] == sorted((item["score"] for item in similar), reverse=True)

    upload = {"file": ("query.png", twin.read_bytes())}
    found = service.http.post(f"/datasets/{dataset_id}/search", params={"limit": 2}, files=upload).json()["items"]
    assert {item["sample_id"] for item in found} == {"twin.png", "cat/0004.png"}

    groups = service.http.get(f"/datasets/{dataset_id}/duplicates", params={"threshold": 0.9999}).json()["groups"]
    assert [{item["sample_id"] for item in group} for group in groups] == [{"twin.png", "cat/0004.png"}]
