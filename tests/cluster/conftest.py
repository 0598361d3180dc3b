"""A cluster of three nodes on one machine, the service on it, the database on the node that is for it."""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions

from deployments import writer
from serve_app import main
from serve_app.config import Settings
from tests.faults.wait import PATIENCE_S, until
from tests.invariants import check_invariants
from tests.ports import free_port
from tests.ray.exporters import EXPORTED_EVERY_S
from tests.tiny_models import make_tiny_checkpoint

QUICK_VERDICT = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "10"}
"""A node that does not answer for five seconds counts as dead; by default it takes fifteen."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A head for nothing but the cluster, and one node with room for replicas."""
    os.environ.update(QUICK_VERDICT, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    os.environ["RAY_metrics_report_interval_ms"] = f"{1000 * EXPORTED_EVERY_S:.0f}"  # noqa: SIM112  # Ray's spelling
    cluster = Cluster()
    cluster.add_node(num_cpus=0, include_dashboard=True, dashboard_port=free_port())
    try:
        cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, namespace=writer.NAMESPACE, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="session")
def home(cluster: Cluster, settings: Settings) -> Any:
    """The node that holds the database; it comes last, and the writer waits for it."""
    actor = writer.find_or_start(settings)
    asked = actor.whoami.remote()
    assert ray.wait([asked], timeout=2)[0] == []
    node = cluster.add_node(num_cpus=2, resources={writer.RESOURCE: 1})
    state: Any = ray.get(asked, timeout=PATIENCE_S)
    assert state["node_id"] == node.node_id
    return node


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    base = tmp_path_factory.mktemp("nodes")
    model = make_tiny_checkpoint(base / "tiny-dinov2")
    return Settings.from_environment(
        {},
        data_dir=base / "data",
        dataset_roots=(base,),
        model=str(model),
        port=free_port(),
        device="cpu",
        max_replicas=2,
        pin_writer=True,
    )


@pytest.fixture(scope="session")
def service(settings: Settings, home: Any) -> Iterator[Settings]:
    # Nodes of one machine share its ports: one proxy, where a real cluster has one on every node.
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port), proxy_location="HeadOnly")
    main.deploy(settings)
    yield settings
    main.undeploy()
    check_invariants(settings.database_path)


@pytest.fixture(scope="session")
def http(service: Settings) -> Iterator[httpx.Client]:
    """A client of the service, once it is ready."""
    with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        yield http
