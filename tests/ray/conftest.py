"""Fixtures: one service for all Ray tests, with three nodes on this machine, both applications and a tiny model."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

from deployments import proxy, writer
from serve_app import main
from serve_app.config import Settings
from serve_app.main import RAY_TIME_LIMITS
from tests import s3_server
from tests.faults.wait import PATIENCE_S, until
from tests.invariants import check_invariants
from tests.ports import free_port
from tests.ray.deploy_files import SERVE_CONFIG, on_this_machine
from tests.ray.exporters import EXPORTED_EVERY_S
from tests.tiny_models import make_tiny_checkpoint

NODE = {"num_cpus": 2, "object_store_memory": 300_000_000}


@dataclass(frozen=True)
class Service:
    """The running service under test."""

    settings: Settings
    http: httpx.Client
    roots: Path


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """A real S3 server on loopback; the cluster's processes inherit its address in their environment."""
    with s3_server.running() as url:
        os.environ.update(s3_server.environment(url))
        yield url


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    base = tmp_path_factory.mktemp("service")
    roots = base / "images"
    roots.mkdir()
    model = make_tiny_checkpoint(base / "tiny-dinov2")
    return Settings.from_environment(
        {},
        data_dir=base / "data",
        dataset_roots=(roots, "s3://photos", "s3://leaving"),
        model=str(model),
        port=free_port(),
        device="cpu",
        max_replicas=2,
        pin_writer=True,
    )


@pytest.fixture(scope="session")
def cluster(s3_url: str) -> Iterator[Cluster]:
    """A head node without CPUs for replicas, and one node with CPUs."""
    os.environ["RAY_metrics_report_interval_ms"] = f"{1000 * EXPORTED_EVERY_S:.0f}"  # noqa: SIM112  # Ray's spelling
    os.environ["RAY_health_check_period_ms"] = RAY_TIME_LIMITS["RAY_health_check_period_ms"]  # noqa: SIM112  # as above
    os.environ["HF_HUB_OFFLINE"] = "1"  # a model that is not on this machine is never downloaded
    os.environ.update(proxy.CALLBACK)
    cluster = Cluster()
    cluster.add_node(**NODE | {"num_cpus": 0}, include_dashboard=True, dashboard_port=free_port())
    try:
        # The driver connects before other nodes exist, because it must not belong to a node that a test removes.
        ray.init(address=cluster.address, namespace=writer.NAMESPACE, log_to_driver=False)
        cluster.add_node(**NODE)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="session")
def home(cluster: Cluster, settings: Settings) -> Any:
    """The node that holds the database; it is added last, and the writer waits for it."""
    actor = writer.find_or_start(settings)
    asked = actor.whoami.remote()
    assert ray.wait([asked], timeout=2)[0] == []
    node = cluster.add_node(**NODE, resources={writer.RESOURCE: 1})
    state: Any = ray.get(asked, timeout=PATIENCE_S)
    assert state["node_id"] == node.node_id
    return node


def are_running() -> bool:
    """Whether every application of the configuration is up. Fails when one cannot be deployed."""
    states = {name: application.status for name, application in serve.status().applications.items()}
    assert "DEPLOY_FAILED" not in states.values(), str(serve.status())
    return all(states.get(application["name"]) == "RUNNING" for application in SERVE_CONFIG["applications"])


@pytest.fixture(scope="session")
def service(cluster: Cluster, settings: Settings, home: Any) -> Iterator[Service]:
    """The service as KubeRay deploys it: with the `serveConfigV2` of `deploy/kuberay.yaml`, sent to the dashboard."""
    ServeSubmissionClient(f"http://{cluster.head_node.webui_url}").deploy_applications(on_this_machine(settings))
    try:
        until(are_running, lambda: str(serve.status()))
        with httpx.Client(base_url=settings.url, timeout=PATIENCE_S) as http:
            until(lambda: http.get("/readyz").status_code == 200)
            yield Service(settings, http, settings.data_dir.parent / "images")
    finally:
        main.undeploy()
        # The routers of this process's clients would go on pushing metrics, from threads, after Ray's end.
        serve.shutdown()
    check_invariants(settings.database_path)
