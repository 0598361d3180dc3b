"""Runs store methods for async callers: writes on one thread, reads on a few other threads."""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from serve_app.errors import InvalidRequest, ServiceError, StoreUnavailable
from serve_app.store.columns import Columns
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.imports import Imports
from serve_app.store.job_samples import JobSamples
from serve_app.store.jobs import Jobs
from serve_app.store.listings import Listings
from serve_app.store.maps import Maps
from serve_app.store.notifications import Notifications
from serve_app.store.operations import Backups, Health
from serve_app.store.retired import Retired
from serve_app.store.running_jobs import Pace
from serve_app.store.tags import Tags
from serve_app.store.vectors import Vectors

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger(__name__)

OnWrite = Callable[[str, float, object], None]
"""A listener for writes that took effect; its arguments are the method's qualified name, the seconds, the result."""


def _tell_nobody(name: str, seconds: float, result: object) -> None:
    pass


class StoreExecutor:
    """The store's parts (`Datasets`, `Columns`, `Tags`, `Jobs`, `Imports`, `Vectors`, …) behind one awaitable call.

    The class is a `services.Writer`. Callers reach only the public methods of a part, by their qualified names. An
    accepted write runs to its end even when its caller stops waiting, and an error in one call affects no other call.
    """

    def __init__(
        self,
        database: Database,
        *,
        readers: int = 4,
        clock: Callable[[], float] = time.monotonic,
        on_write: OnWrite = _tell_nobody,
    ) -> None:
        pace = Pace(clock)
        jobs = Jobs(database, pace, clock)
        samples = JobSamples()
        imports, vectors = Imports(database, pace, jobs.leases, samples), Vectors(database, pace, samples)
        parts = (
            *(Datasets(database), Columns(database), Tags(database), jobs, imports, vectors),
            *(Listings(database, pace), Maps(database), Notifications(database, pace)),
            *(Health(database), Backups(database)),
        )
        self._database = database
        self._methods: dict[str, Callable[..., object]] = {
            f"{type(part).__name__}.{name}": getattr(part, name)
            for part in parts
            for name, attribute in vars(type(part)).items()
            if inspect.isfunction(attribute) and not name.startswith("_")
        }
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._reads = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self._on_write = on_write
        self._retired = Retired(database)
        self._is_step_queued = False
        self._is_closing = False

    async def ask(self, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a method of a part and return its result, or raise its `ServiceError`.

        Raises:
            InvalidRequest: no part has this public method.
            StoreUnavailable: the store is closing, or cannot use its file.
        """
        return cast(R, await self.ask_named(method.__qualname__, args, kwargs))

    async def ask_named(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Do what `ask` does, for callers in other processes: they send the method's name ("Jobs.create")."""
        method = self._methods.get(name)
        if method is None:
            raise InvalidRequest(f"the store has no method '{name}'")
        if self._is_closing:
            raise StoreUnavailable("The store is closing: the service is stopping or being replaced.")
        run: Callable[[], object] = partial(method, *args, **kwargs)
        is_write = hasattr(method, "is_write")
        if hasattr(method, "is_cached"):
            key = (name, tuple(args), tuple(sorted(kwargs.items())))
            kept = self._database.answers.get(key)
            if kept is not None and self._database.is_in_place():
                return kept
            run = partial(self._database.answers.fill, key, run)
        if is_write:
            run = partial(self._write, name, run)
        # The method runs in the caller's context, so that its log lines carry the caller's ids.
        run = partial(copy_context().run, run)
        # The call is shielded below, because cancelling it would take a waiting write out of the queue.
        result = asyncio.get_running_loop().run_in_executor(self._writes if is_write else self._reads, run)
        # When the caller has stopped waiting, nobody reads the error, and asyncio would log it as never retrieved.
        result.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(result)
        except (ServiceError, asyncio.CancelledError):
            raise
        except Exception as error:
            logger.exception("%s failed", name)
            raise ServiceError("The store failed; the log of the service has the details.") from error

    def _write(self, name: str, run: Callable[[], object]) -> object:
        began = time.perf_counter()
        try:
            result = run()
        finally:
            self._queue_step()
        self._on_write(name, time.perf_counter() - began, result)
        return result

    def _queue_step(self) -> None:
        """Queue one step of deletions behind the waiting writes; only the writer thread calls this."""
        if not self._is_step_queued:
            with suppress(RuntimeError):  # the queue is closed, and a later process goes on
                self._writes.submit(self._delete_retired)
                self._is_step_queued = True

    def _delete_retired(self) -> None:
        self._is_step_queued = False
        try:
            if self._retired.step():
                self._queue_step()
        except ServiceError as error:  # the next write queues another step
            logger.warning("retired rows stay for now: %s", error)

    async def drain_and_close(self) -> None:
        """Finish the accepted calls, writes included, then close the database; a second call is harmless."""
        self._is_closing = True
        await asyncio.to_thread(self._drain_and_close)

    def _drain_and_close(self) -> None:
        self._writes.shutdown(wait=True)
        self._reads.shutdown(wait=True)
        self._database.close()
