"""`constellate backup` in the middle of a job, and a service that starts from the copy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import ray

from serve_app.config import Settings
from tests.faults.wait import PATIENCE_S, until
from tests.invariants import check_invariants
from tests.live_service import LiveService
from tests.ports import free_port
from tests.ray.client import TERMINAL, embed, finish, follow, generate, register
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder
from tests.ray.replicas import frozen, nodes_of

pytestmark = pytest.mark.ray


def test_a_backup_during_a_job_is_a_service_to_start_from(service: Service, tmp_path: Path):
    whole_id, _ = embed(service.http, make_folder(service.roots / "whole", n_images=12, seed=21))
    root = make_folder(service.roots / "half-done", n_images=60, seed=22)
    dataset_id = register(service.http, root)
    job_id = generate(service.http, dataset_id)
    next(event for event in follow(service.http, dataset_id) if event["processed"] > 0)

    address = ray.get_runtime_context().gcs_address
    with frozen(nodes_of("DinoV2")):  # or the job might end first
        ran = subprocess.run(
            [sys.executable, "-m", "serve_app.cli", "backup", "--cluster", "--json"],
            env=os.environ | service.settings.to_environment() | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    made = json.loads(ran.stdout)
    assert Path(made["path"]).parent == service.settings.data_dir / "backups"
    assert finish(service.http, dataset_id)["status"] == "complete"

    restored = tmp_path / "data"
    restored.mkdir()
    shutil.copy(made["path"], restored / "constellate.duckdb")
    check_invariants(restored / "constellate.duckdb")
    settings = Settings.from_environment(
        {}, data_dir=restored, dataset_roots=(service.roots,), model=service.settings.model, port=free_port()
    )
    live = LiveService(settings)
    live.start()
    try:
        with httpx.Client(base_url=settings.url, timeout=PATIENCE_S) as http:
            status = http.get(f"/datasets/{whole_id}/embeddings/status").json()
            assert (status["has_embeddings"], status["embedding_count"]) == (True, 12)
            until(lambda: http.get(f"/jobs/{job_id}").json()["status"] in TERMINAL)
            job = http.get(f"/jobs/{job_id}").json()
            assert (job["status"], job["processed"]) == ("complete", 60)
    finally:
        live.stop()
    check_invariants(restored / "constellate.duckdb")
