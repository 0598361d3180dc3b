"""What operators and other clients see of the running service."""

import asyncio
import statistics
import time
from pathlib import Path

import httpx
import pytest
import ray
from ray import serve

from deployments import writer
from deployments.embedder import application_name, is_application_name
from serve_app.config import Settings
from tests.faults.wait import PATIENCE_S
from tests.ray.client import TERMINAL, finish, generate, register
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.ray


def test_serve_status_shows_every_deployment_by_name(service: Service):
    applications = serve.status().applications
    assert set(applications["api"].deployments) == {"Ingress", "JobRunner", "Reducer", "Searcher"}
    assert set(applications["embedder"].deployments) == {"DinoV2"}
    assert applications["api"].status == "RUNNING"


def test_no_two_models_share_an_application():
    models = [
        "dinov2-small",
        "/m/tiny.v2",
        "/m/tiny-v2",
        "/m/tiny v2/",
        f"/a{'/m' * 2000}",
        f"/b{'/m' * 2000}",
        "/模型",
    ]
    names = [application_name(Settings(), model) for model in models]
    assert len(set(names)) == len(models)
    assert all(is_application_name(name) and len(name) < 100 for name in names)
    assert names[0].startswith("embedder-dinov2-small-")
    assert names[1].startswith("embedder-m-tiny-v2-")


def test_the_default_model_by_a_relative_path_is_not_deployed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text('{"model_type": "dinov2"}')
    monkeypatch.chdir(tmp_path)
    settings = Settings(model="./tiny")
    assert application_name(settings, "./tiny") == "embedder"
    assert application_name(settings, str(tmp_path / "tiny")) == "embedder"


def test_the_service_takes_no_application_of_others_for_its_own():
    assert is_application_name("embedder")
    assert not any(map(is_application_name, ["embedder2", "embedder-of-texts", "my-embedder", "embedder-"]))


def test_the_writer_is_one_named_actor_that_runs_this_code(service: Service):
    assert service.http.get("/jobs").status_code == 200
    actor = ray.get_actor("duckdb-writer", namespace="constellate")
    assert ray.get(actor.version.remote()) == writer.code_version()


@pytest.mark.parametrize("value", ["0.000001", "-1", "nan", b"\xff"])
def test_a_client_has_no_say_in_how_long_the_proxy_waits(service: Service, value: str | bytes):
    headers = {"x-request-timeout-seconds": value, "x-request-disconnect-disabled": "?1"}
    assert service.http.get("/jobs", headers=headers).status_code == 200


def test_readyz_embeds_and_writes(service: Service):
    answer = service.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")


def test_fifty_streams_end_and_healthz_is_answered_meanwhile(service: Service):
    root = make_folder(service.roots / "fifty", n_images=100)
    dataset_id = register(service.http, root)
    generate(service.http, dataset_id)

    async def watch(client: httpx.AsyncClient) -> str:
        async with client.stream("GET", f"/datasets/{dataset_id}/embeddings/progress") as answer:
            last = [line async for line in answer.aiter_lines() if line.startswith("data:")][-1]
        return last

    async def quickest_s(client: httpx.AsyncClient, done: asyncio.Event) -> float:
        seconds = []
        while not (len(seconds) >= 5 and done.is_set()):
            answer = await client.get("/healthz")
            assert answer.status_code == 200
            seconds.append(answer.elapsed.total_seconds())
            await asyncio.sleep(0.1)
        return min(seconds)

    async def scenario() -> tuple[list[str], float, float]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=service.settings.url, timeout=PATIENCE_S, limits=limits) as client:
            done = asyncio.Event()
            probing = asyncio.create_task(quickest_s(client, done))
            ends = await asyncio.gather(*(watch(client) for _ in range(50)))
            done.set()
            return list(ends), await probing, await quickest_s(client, done)

    ends, beside_streams_s, alone_s = asyncio.run(scenario())
    assert all(any(f'"{status}"' in end for status in TERMINAL) for end in ends)
    assert len(ends) == 50
    assert beside_streams_s < 20 * alone_s


def test_reads_during_a_job_stay_quick(service: Service):
    root = make_folder(service.roots / "reads", n_images=100)
    dataset_id = register(service.http, root)
    generate(service.http, dataset_id)
    reading, answering = [], []
    while True:
        started = time.perf_counter()
        job = service.http.get("/jobs").json()[0]
        reading.append(time.perf_counter() - started)
        service.http.get("/healthz")  # what a request costs that reads nothing, on a machine that may be busy
        answering.append(time.perf_counter() - started - reading[-1])
        if job["status"] in TERMINAL:
            break
    assert finish(service.http, dataset_id)["status"] == "complete"
    # The same client asks both in turn, on a machine that may be busy.
    assert statistics.median(reading) < 20 * statistics.median(answering)


def test_an_unavailable_model_is_refused_with_the_three_ways_to_get_it(service: Service):
    root = make_folder(service.roots / "no-weights", n_images=2)
    dataset_id = register(service.http, root)
    generate(service.http, dataset_id, model_name="dinov2-giant")
    end = finish(service.http, dataset_id)
    assert end["status"] == "error"
    assert "CONSTELLATE_MODEL" in end["message"]
    assert "hf download" in end["message"]


def test_unknown_models_and_folders_outside_the_roots_are_refused(service: Service):
    root = make_folder(service.roots / "refused", n_images=1)
    dataset_id = register(service.http, root)
    answer = service.http.post(f"/datasets/{dataset_id}/embeddings/generate", json={"model_name": "dinov9"})
    assert answer.status_code == 422
    missing = service.http.post("/datasets", json={"name": "a", "root": "/nowhere"})
    existing = service.http.post("/datasets", json={"name": "a", "root": "/etc"})
    assert (missing.status_code, existing.status_code) == (403, 403)
    assert missing.json()["detail"] == existing.json()["detail"]
