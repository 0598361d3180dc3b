"""The named actor `duckdb-writer`: the only process that opens the database.

A unique actor name guarantees mutual exclusion, and a single Serve replica does not (decision 0001). The logic is in
`serve_app.store`; this shell owns what only Ray provides: the name, the restarts, the hand-over to new code.
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from deployments import code_on_disk
from deployments.metrics import WriterMetrics
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.policy import SMALL_ACTOR_CPUS
from serve_app.records import TERMINAL, Block, Job

log = logging.getLogger("constellate.writer")

NAME = "duckdb-writer"
NAMESPACE = "constellate"
RESOURCE = "duckdb_writer"
"""An optional custom resource: start the node that holds the file with `--resources='{"duckdb_writer": 1}'`.

If that node may start after the service, `Settings.pin_writer` makes the writer wait for it.
"""

MAX_CONCURRENCY = 256
FIGURES_S = 5.0
"""How often the writer reads the dashboard's figures from the database; Ray exports them every ten seconds."""


@cache
def code_version() -> str:
    """The SHA-256 over the sources of both packages at the first call; a hand-over compares it."""
    return code_on_disk.version()


class DuckDBWriter:
    """The actor's class. Its constructor does not open the database; calls report a database that cannot be opened."""

    def __init__(self, database_path: Path, version: str) -> None:
        # The imports are here because other processes import this module to find the actor and must not load DuckDB.
        from serve_app.store.database import Database
        from serve_app.store.executor import StoreExecutor

        logs.to_stderr(NAME)
        os.umask(0o077)  # DuckDB makes its log beside the database with the mode that the umask leaves
        self._version = version
        self._metrics = WriterMetrics()
        self._executor = StoreExecutor(Database(database_path), on_write=self._on_write)
        self._publishing: asyncio.Task[None] | None = None

    async def ask(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], ids: Mapping[str, str] | None = None
    ) -> Any:
        """Run the store method `Part.method`; `ids` are the ids for log lines (`logs.ids`)."""
        if self._publishing is None:  # the constructor has no event loop yet
            self._publishing = asyncio.create_task(self._publish())
        n_rows = sum(arg.n_samples for arg in args if isinstance(arg, Block))
        with logs.about(**(ids or {})), self._metrics.queued(n_rows):
            return await self._executor.ask_named(name, args, kwargs)

    async def _publish(self) -> None:
        from serve_app.store.operations import Health

        while True:
            with suppress(ServiceError):
                self._metrics.show(await self._executor.ask(Health.figures))
            await asyncio.sleep(FIGURES_S)

    def _on_write(self, name: str, seconds: float, result: object) -> None:
        self._metrics.wrote(name, seconds, result)
        if isinstance(result, Job) and (name == "Jobs.create" or result.status in TERMINAL):
            with logs.about(job_id=result.id):
                log.info("job %s: %s, %s (%s)", result.id, result.status, result.message, result.kind)

    async def version(self) -> str:
        """The `code_version` with which this actor was started."""
        return self._version

    async def whoami(self) -> dict[str, object]:
        """The process id, the node and the code version, for operators and fault tests."""
        return {"pid": os.getpid(), "node_id": ray.get_runtime_context().get_node_id(), "version": self._version}

    async def leave(self) -> None:
        """Finish queued writes, checkpoint, close the file and end the actor for good."""
        await self._executor.drain_and_close()
        ray.actor.exit_actor()


def find_or_start(settings: Settings) -> ActorHandle[Any]:
    """The writer's handle; the actor is started if it does not run. The call blocks for a look-up in the GCS."""
    existing = _find()
    if existing is not None:
        return existing
    is_pinned = settings.pin_writer or RESOURCE in ray.cluster_resources()
    options: dict[str, Any] = {
        "name": NAME,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": MAX_CONCURRENCY,
        "num_cpus": SMALL_ACTOR_CPUS,
        "resources": {RESOURCE: 1.0} if is_pinned else {},
        "scheduling_strategy": "DEFAULT",
    }
    actor_class: Any = ray.remote(DuckDBWriter)
    actor: ActorHandle[Any] = actor_class.options(**options).remote(settings.database_path, code_version())
    return actor


def end(timeout_s: float = 20.0) -> bool:
    """Let the writer drain, close and exit, and return whether there was one; block until it has given up its name."""
    actor = _find()
    if actor is None:
        return False
    deadline = time.monotonic() + timeout_s
    while _is_same(actor, _find()):
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            log.warning("writer did not drain in %.0f s and is killed", timeout_s)
            ray.kill(actor)
        else:
            # A call that works ends in the actor's death. If the actor was restarting, the loop asks it again.
            with suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
                ray.get(actor.leave.remote(), timeout=remaining_s)
        time.sleep(0.05)
    return True


def hand_over(settings: Settings, timeout_s: float = 60.0) -> None:
    """Replace a writer that runs other code with one that runs this code; callers get 503 for a short time.

    Only a new JobRunner calls this, and only once, so that overlapping old replicas never hand back. An old replica
    may start the old code again in between; the loop then ends it again.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        actor = find_or_start(settings)
        try:
            running: Any = ray.get(actor.version.remote(), timeout=10)
        except ray.exceptions.RayError as error:
            log.warning("writer did not answer with its version (%s); asking again", type(error).__name__)
            time.sleep(0.5)
            continue
        if running == code_version():
            return
        log.info("writer hands over from %.8s to %.8s", running, code_version())
        end()
    log.error("writer still runs other code: the hand-over did not succeed in %.0f s", timeout_s)


def _find() -> ActorHandle[Any] | None:
    try:
        actor: ActorHandle[Any] = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        return None
    return actor


def _is_same(actor: ActorHandle[Any], other: ActorHandle[Any] | None) -> bool:
    return other is not None and other._actor_id == actor._actor_id
