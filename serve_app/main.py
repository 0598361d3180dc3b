"""Composition root: the two Serve applications, and the service in the foreground.

This is the only module of `serve_app` that uses Ray. `serve_config.yaml` names `api` and `embedder`; the command line
calls `serve`, `down`, `bulk` and `backup`.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import ray
from ray import serve as ray_serve
from ray.exceptions import RayTaskError
from ray.serve import Application
from ray.serve._private import client as serve_client
from ray.serve.config import AutoscalingConfig, HTTPOptions
from ray.serve.schema import LoggingConfig

from deployments import embedder as embedder_deployment
from deployments import proxy, worker_template, writer
from deployments.bulk import Bulk, BulkState
from deployments.cluster import choose_policy
from deployments.ingress import ingress_class
from deployments.job_runner import JobRunner
from deployments.loopback import keep_ray_here, use_token_of
from deployments.reducer import Reducer
from deployments.searcher import Searcher
from serve_app import preflight
from serve_app.config import Settings
from serve_app.errors import ServiceError, Unavailable
from serve_app.policy import INGRESS_REPLICAS, SMALL_ACTOR_CPUS
from serve_app.records import Backup
from serve_app.service_record import ServiceRecord
from serve_app.store.operations import Backups

log = logging.getLogger("constellate")

API = "api"
MAX_STREAMS_AND_REQUESTS = 1000
"""Every open stream occupies a request slot (with Serve's default of 5, five viewers would block the ingress)."""

RAY_TIME_LIMITS = {
    # Serve kills a proxy that is not ready in time, and then the start of the service fails. The default of 5 s is too
    # short on a busy machine.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # Serve replaces its proxy after three failed checks. With the default of 10 s, the port is dead for half a minute.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Ray declares a node dead after five failed checks. With the default of 3 s, a service without its raylet goes on
    # for 20 s.
    "RAY_health_check_period_ms": "1000",
    # Ray's processes, including this one, look this long for Ray's control store before they end. Nobody restarts it.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
RAY_CHECK_S = 1.0

SERVE_POLL_S = 0.2
"""How often this process asks Serve whether applications run or are gone; Serve's own second is lost at each end."""

SMALL: dict[str, Any] = {
    "health_check_period_s": 1.0,  # how soon Serve notices a killed replica
    "graceful_shutdown_wait_loop_s": 0.1,
    "ray_actor_options": {"num_cpus": SMALL_ACTOR_CPUS},
    "logging_config": LoggingConfig(encoding="JSON", enable_access_log=False),
}
"""What all deployments of the application `api` have in common."""


def api(args: Settings) -> Application:
    """The application `api`: ingress, job loop, reducer, searcher. Raises `SettingsError`."""
    settings = _with_environment(args)
    policy = choose_policy(settings)
    reducer = ray_serve.deployment(
        name="Reducer",
        max_ongoing_requests=16,
        autoscaling_config=AutoscalingConfig(
            min_replicas=0, initial_replicas=0, max_replicas=1, target_ongoing_requests=8, downscale_to_zero_delay_s=600
        ),
        **SMALL,
    )(Reducer).bind(settings)
    searcher = ray_serve.deployment(
        name="Searcher",
        max_ongoing_requests=32,
        **SMALL,
    )(Searcher).bind(settings)
    runner = ray_serve.deployment(
        name="JobRunner",
        max_ongoing_requests=64,
        graceful_shutdown_timeout_s=10,
        **SMALL,
    )(JobRunner).bind(settings, policy, reducer, searcher)
    return ray_serve.deployment(
        name="Ingress",
        num_replicas=INGRESS_REPLICAS,
        max_ongoing_requests=MAX_STREAMS_AND_REQUESTS,
        max_queued_requests=200,
        graceful_shutdown_timeout_s=5,
        **SMALL,
    )(ingress_class(settings)).bind(settings, policy, runner, searcher)


def embedder(args: Settings) -> Application:
    """The application `embedder`: the default model. Raises `SettingsError`."""
    settings = _with_environment(args)
    policy = choose_policy(settings)
    return embedder_deployment.application(settings, settings.model, policy, min_replicas=policy.min_replicas)


def _with_environment(args: Settings) -> Settings:
    """The settings from `args` of the configuration file, then from the environment, then from the defaults."""
    return Settings.from_environment(os.environ, **{name: getattr(args, name) for name in args.model_fields_set})


def serve(settings: Settings) -> None:
    """Run the service in the foreground until SIGINT, SIGTERM or SIGHUP, and then stop all of it.

    It starts Ray on this machine, or joins the cluster that `RAY_ADDRESS` names.

    Raises:
        Unavailable: the port is taken, another service uses the data directory, or Ray died.
    """
    stop = threading.Event()
    preflight.check_data_dir(settings)
    preflight.await_port(settings)
    preflight.make_private(settings)
    preflight.raise_file_limit()
    os.environ.update({name: os.environ.get(name, value) for name, value in (RAY_TIME_LIMITS | proxy.CALLBACK).items()})
    if not os.environ.get("RAY_ADDRESS"):
        keep_ray_here()
    serve_client.CLIENT_POLLING_INTERVAL_S = SERVE_POLL_S  # type: ignore[attr-defined]
    _set_on_signals(stop)
    with nullcontext() if os.environ.get("RAY_ADDRESS") else worker_template.running():
        _run(settings, stop)


def _run(settings: Settings, stop: threading.Event) -> None:
    started = time.monotonic()
    try:
        context = _start_ray()
        # Ray has replaced our handler of SIGTERM with one that ends the process at once.
        _set_on_signals(stop)
        writer.find_or_start(settings)  # it opens the database while Serve starts
        deploy(settings)
        record = ServiceRecord.of_this_process(url=settings.url, ray_address=context.address_info["address"])
        record.write(settings.data_dir)
        _announce(settings, record, context.dashboard_url, time.monotonic() - started)
        _watch_ray(stop)
        print("Stopping …", flush=True)
        record.remove(settings.data_dir)
    finally:
        _stop()


def _start_ray() -> Any:
    """Start Ray, or join the cluster that `RAY_ADDRESS` names. Raises `Unavailable`: it did not start in time."""
    try:
        return ray.init(
            namespace=writer.NAMESPACE,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray has no class for it, and no setting of its 30 s
            raise
        raise Unavailable(
            "Ray did not start within 30 s, most likely because this machine is busy; start the service again"
        ) from error


def _watch_ray(stop: threading.Event) -> None:
    """Wait for `stop`. Raises `Unavailable` when Ray has died, so that a supervisor sees this process end."""
    while not stop.wait(RAY_CHECK_S):
        if not any(node["Alive"] for node in ray.nodes()):
            raise Unavailable("Ray died under the service; running jobs go on when it is started again")


def _set_on_signals(stop: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())


def deploy(settings: Settings) -> None:
    """Deploy both applications on the connected cluster and wait until they run."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray_serve.start(
        http_options=HTTPOptions(host=settings.host, port=settings.port, keep_alive_timeout_s=90),
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False, log_level="WARNING"),
    )
    ray_serve.run_many(
        [
            ray_serve.RunTarget(target=embedder(settings), name=embedder_deployment.APPLICATION, route_prefix=None),
            ray_serve.RunTarget(target=api(settings), name=API, route_prefix="/"),
        ]
    )


def down(settings: Settings) -> bool:
    """End the service on the cluster that `RAY_ADDRESS` names, and return whether there was one."""
    ray.init(address=os.environ.get("RAY_ADDRESS", "auto"), namespace=writer.NAMESPACE, logging_level=logging.WARNING)
    try:
        return undeploy()
    finally:
        ray.shutdown()


def bulk(
    settings: Settings,
    source: str,
    out: Path,
    *,
    column: str,
    part_images: int,
    actors: int,
    on_part: Callable[[BulkState], object],
) -> BulkState:
    """Embed a set with `Bulk` on the running service's cluster, else on that of RAY_ADDRESS, else on a temporary one.

    Raises:
        InvalidRequest, Unavailable: see `Bulk.run`.
    """
    record = ServiceRecord.read(settings.data_dir)
    address = record.ray_address if record else os.environ.get("RAY_ADDRESS")
    if address:
        use_token_of(address)
    else:
        keep_ray_here()
    preflight.raise_file_limit()
    ray.init(
        address=address,
        namespace=writer.NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    is_ours = embedder_deployment.APPLICATION not in ray_serve.status().applications
    try:
        if is_ours:
            ray_serve.start(proxy_location="Disabled")
            ray_serve.run(embedder(settings), name=embedder_deployment.APPLICATION, route_prefix=None)
        return Bulk(source, out, column=column, part_images=part_images, actors=actors).run(on_part)
    finally:
        if is_ours:
            ray_serve.delete(embedder_deployment.APPLICATION)
        ray.shutdown()


def backup(settings: Settings, ray_address: str) -> Backup:
    """Make the writer on this cluster copy its database; jobs continue meanwhile. Raises `ServiceError`."""
    use_token_of(ray_address)
    ray.init(address=ray_address, namespace=writer.NAMESPACE, logging_level=logging.WARNING)
    try:
        actor: Any = writer.find_or_start(settings)
        made: Backup = ray.get(actor.ask.remote(Backups.create.__qualname__, (), {}))
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, ServiceError) else error from None
    finally:
        ray.shutdown()
    return made


def undeploy(*, with_models: bool = True) -> bool:
    """Delete our applications on the connected cluster and close the database; return whether there were any.

    Serve itself is not shut down, because other applications on it must go on. Models keep nothing, so that those of a
    Ray that ends anyway need not be deleted.
    """
    ours = [
        name
        for name in ray_serve.status().applications
        if name == API or (with_models and embedder_deployment.is_application_name(name))
    ]
    with ThreadPoolExecutor() as deletions:  # each waits for the end of an application's replicas
        list(deletions.map(ray_serve.delete, ours))
    return writer.end() or bool(ours)


def _stop() -> None:
    """Stop serving, close the database and end Ray; afterwards, no process of this service is left."""
    if ray.is_initialized():
        if any(node["Alive"] for node in ray.nodes()):
            undeploy(with_models=bool(os.environ.get("RAY_ADDRESS")))
        ray.shutdown()
    print("Stopped.", flush=True)


def _announce(settings: Settings, record: ServiceRecord, dashboard_url: str | None, seconds: float) -> None:
    print(f"Constellate is up after {seconds:.0f} s.")
    print(f"  map            {settings.url}/")
    print(f"  API            {settings.url}/openapi.json")
    if dashboard_url:
        print(f"  Ray dashboard  http://{dashboard_url}/ (token: `ray get-auth-token`)")
    print(f"  Ray            RAY_ADDRESS='{record.ray_address}' RAY_AUTH_MODE=token (for other jobs on this machine)")
    print(f"  data           {settings.data_dir}")
    print("Press Ctrl-C to stop.", flush=True)
