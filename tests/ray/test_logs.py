"""What the processes write about a job and a request: found by their ids, and quiet about users' mistakes."""

import pytest

from tests.faults.wait import until
from tests.ray.client import embed, register
from tests.ray.conftest import Service
from tests.ray.exporters import log_lines, session_dir
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.ray


def components(**ids: str) -> set[str]:
    """The components that wrote a line with these ids."""
    return {line["component"] for line in log_lines() if ids.items() <= line.items()}


def test_a_job_is_found_in_every_process_by_its_id(service: Service):
    _, end = embed(service.http, make_folder(service.roots / "logged", n_images=10, seed=8))
    job_id = end["job_id"]
    until(lambda: components(job_id=job_id) >= {"JobRunner", "duckdb-writer"})
    lines = [line for line in log_lines() if line.get("job_id") == job_id]
    messages = [line["message"] for line in sorted(lines, key=lambda line: line["time"])]
    assert "running" in messages[0]
    assert "attempt 1 begins" in messages[1]
    assert "complete, Embedded 10 images" in messages[-1]


def test_a_request_is_found_in_every_process_by_its_id(service: Service):
    dataset_id = register(service.http, make_folder(service.roots / "asked", n_images=2))
    answer = service.http.post(
        f"/datasets/{dataset_id}/embeddings/generate", json={}, headers={"X-Request-ID": "request-of-mine"}
    )
    assert answer.headers["X-Request-ID"] == "request-of-mine"
    until(lambda: components(request_id="request-of-mine") >= {"Ingress", "duckdb-writer"})
    # The writer's line joins the two ids.
    assert components(request_id="request-of-mine", job_id=answer.json()["job_id"]) == {"duckdb-writer"}


def test_a_request_without_an_id_gets_one_that_its_problem_tells(service: Service):
    answer = service.http.get("/jobs/none")
    request_id = answer.json()["request_id"]
    assert answer.headers["X-Request-ID"] == request_id
    until(lambda: components(request_id=request_id) == {"Ingress"})


def test_users_mistakes_leave_no_traceback(service: Service):
    logs = session_dir() / "logs"
    before = {file: file.stat().st_size for file in logs.rglob("*") if file.is_file()}
    root = make_folder(service.roots / "mistaken", n_images=3)
    (root / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    dataset_id, end = embed(service.http, root)
    assert end["skipped"] == 1
    for method, path, body in (
        ("POST", "/datasets", {"name": "mistaken", "root": str(root)}),
        ("POST", "/datasets", {"name": "elsewhere", "root": "/etc"}),
        ("POST", f"/datasets/{dataset_id}/embeddings/generate", {"model_name": "dinov9"}),
        ("POST", f"/datasets/{dataset_id}/embeddings/cancel", {}),
        ("GET", "/datasets/none/similarity/x", None),
        ("GET", f"/datasets/{dataset_id}/similarity/x", None),
    ):
        assert 400 <= service.http.request(method, path, json=body).status_code < 500
    refused = service.http.post(f"/datasets/{dataset_id}/search", files={"file": b"no image"})
    assert refused.status_code == 422
    until(lambda: components(request_id=refused.headers["X-Request-ID"]))
    written = "".join(
        file.read_bytes()[before.get(file, 0) :].decode(errors="replace")
        for file in logs.rglob("*")
        if file.is_file() and file.name.startswith(("worker", "replica"))
    )
    assert written
    assert "Traceback" not in written


def test_serve_logs_json_too(service: Service):
    files = list((session_dir() / "logs" / "serve").glob("replica_*"))
    assert files
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert lines
    assert [line for line in lines if not line.startswith("{")] == []
