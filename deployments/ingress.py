"""`Ingress`: the HTTP application on Serve. It only finds the services; the routes are in `serve_app.api`."""

from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.metrics import Gauge

from deployments.handles import EmbedderHandle, RunnerHandle, SearcherHandle, WriterHandle
from deployments.loopback import keep_replica_here
from serve_app import logs
from serve_app.config import Settings
from serve_app.policy import Policy
from serve_app.services import Services

if TYPE_CHECKING:
    from fastapi import FastAPI


class Ingress:
    """One HTTP replica. It does no background work: a job never depends on a replica of this class."""

    def __init__(
        self, settings: Settings, policy: Policy, runner: DeploymentHandle[Any], searcher: DeploymentHandle[Any]
    ) -> None:
        logs.to_stderr("Ingress")
        keep_replica_here()
        self.services = Services(
            settings=settings,
            policy=policy,
            writer=WriterHandle(settings),
            embedder=EmbedderHandle(settings),
            searcher=SearcherHandle(searcher),
            runner=RunnerHandle(runner),
            on_streams=Gauge("sse_streams", description="Open progress streams").set,
        )


def _services_of_this_replica() -> Services:
    ingress: Any = serve.get_replica_context().servable_object
    services: Services = ingress.services
    return services


def ingress_class(settings: Settings) -> type[Any]:
    """`Ingress` with its routes. Each replica builds the routes, because a built application cannot be pickled."""

    def build() -> "FastAPI":  # Serve takes any callable that is no plain function for a finished application
        # The import is here because the process that deploys this class answers no requests.
        from serve_app.api import create_app

        return create_app(settings, _services_of_this_replica)

    decorated: type[Any] = serve.ingress(build)(Ingress)
    return decorated
