"""One real cluster for all Ray tests: both applications, the tiny model, a free port."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import ray

from deployments import proxy, writer
from serve_app import main
from serve_app.config import Settings
from tests import s3_server
from tests.faults.wait import PATIENCE_S
from tests.ports import free_port
from tests.ray.exporters import EXPORTED_EVERY_S
from tests.tiny_models import make_tiny_checkpoint


@dataclass(frozen=True)
class Service:
    """The running service under test."""

    settings: Settings
    http: httpx.Client
    roots: Path


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """A real S3 server on loopback, in the environment that the cluster's processes inherit."""
    with s3_server.running() as url:
        os.environ.update(s3_server.environment(url))
        yield url


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, s3_url: str) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("service")
    roots = base / "images"
    roots.mkdir()
    model = make_tiny_checkpoint(base / "tiny-dinov2")
    settings = Settings.from_environment(
        {},
        data_dir=base / "data",
        dataset_roots=(roots, "s3://photos", "s3://leaving"),
        model=str(model),
        port=free_port(),
        device="cpu",
    )
    os.environ["RAY_metrics_report_interval_ms"] = f"{1000 * EXPORTED_EVERY_S:.0f}"  # noqa: SIM112  # Ray's spelling
    os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not on this machine is not had at all
    os.environ.update(proxy.CALLBACK)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=300_000_000,
        namespace=writer.NAMESPACE,
    )
    try:
        main.deploy(settings)
        with httpx.Client(base_url=settings.url, timeout=PATIENCE_S) as http:
            yield Service(settings, http, roots)
    finally:
        main.undeploy()
        ray.shutdown()
