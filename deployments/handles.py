"""Implements the protocols of `serve_app` with Ray handles, and translates every Ray error into one of ours.

the actor or replica died .... WorkerCrashed (writer: StoreUnavailable)
its queue is full ............ Overloaded
any other error of Ray ....... Unavailable
it raised a ServiceError ..... that error
it raised another error ...... that error, or Ray's copy of it; it is a bug and belongs into the log
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

from ray import serve
from ray.actor import ActorHandle
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayActorError,
    RayError,
    RayTaskError,
    UnserializableException,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments import writer
from deployments.embedder import DEPLOYMENT, ensure_application
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import Overloaded, ServiceError, StoreUnavailable, Unavailable, WorkerCrashed
from serve_app.records import Block, Claim, ModelCard, SourceFile
from serve_app.services import Embedded
from serve_app.store.columns import Columns
from serve_app.store.datasets import Datasets
from serve_app.store.imports import Imports
from serve_app.store.jobs import Jobs
from serve_app.store.listings import Listings
from serve_app.store.maps import Maps
from serve_app.store.tags import Tags
from serve_app.store.vectors import Vectors

log = logging.getLogger("constellate.handles")

P = ParamSpec("P")
R = TypeVar("R")

STORE_TIMEOUT_S = 5.0
BULK_TIMEOUT_S = 300.0
BULK_METHODS: frozenset[str] = frozenset(
    method.__qualname__
    for method in (
        Datasets.register,
        Datasets.rescan,
        Datasets.delete,
        Datasets.samples,
        Listings.begin,
        Listings.put,
        Listings.commit,
        Columns.put,
        Columns.remove,
        Columns.values,
        Columns.all,
        Columns.rows,
        Columns.unlistable,
        Tags.add,
        Tags.remove,
        Tags.all,
        Imports.begin,
        Jobs.begin,
        Maps.points,
        Vectors.points,
        Vectors.commit,
        Vectors.put_points,
        Vectors.rows,
        Vectors.export,
        Vectors.matching,
        Vectors.values,
        Vectors.files,
    )
)
"""Store methods whose time grows with the dataset; the others answer in milliseconds unless something is wrong."""

CRASHES = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)
"""Errors of a call whose process died. Ray raises `OutOfMemoryError` if its memory monitor ended the process."""

EMBED_TIMEOUT_S = 120.0
SEARCH_TIMEOUT_S = 3600.0
"""Comparing all pairs of some hundred thousand images takes longer than ten minutes; it ends with its caller."""


@asynccontextmanager
async def service_errors(who: str) -> AsyncIterator[None]:
    """Translate the errors of Ray calls in the block; `who` names the called process in messages."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, ServiceError):
            raise error.cause from None
        # Ray puts a bare RayError in place of a cause that cannot be pickled.
        if isinstance(error.cause, RayError | RayServeException) and type(error.cause) is not RayError:
            raise Unavailable(f"{who} could not reach its own helper; try again") from error
        raise
    except UnserializableException:
        raise
    except CRASHES as error:
        raise WorkerCrashed(f"{who} went away during the call; it is being restarted") from error
    except (BackPressureError, PendingCallsLimitExceeded) as error:
        raise Overloaded(f"{who} has a full queue; try again later") from error
    except (RayError, RayServeException) as error:
        raise Unavailable(f"{who} cannot be reached: {type(error).__name__}") from error
    except TimeoutError as error:
        raise Unavailable(f"{who} did not answer in time") from error


async def ask(handle: DeploymentHandle[Any], method: str, *args: object, who: str, timeout_s: float | None) -> Any:
    """Ask a deployment. Replicas return their own errors as values, to keep logs quiet; this function raises them.

    When this call is cancelled or its time is over, the replica's call is cancelled too.
    """
    async with service_errors(who):
        response = getattr(handle, method).remote(*args)
        try:
            answer = await asyncio.wait_for(response, timeout_s)
        except TimeoutError:
            response.cancel()
            raise
        except asyncio.CancelledError as error:
            if _is_cancelled():
                response.cancel()  # Serve does it by itself only while it looks for a replica
                raise
            # Serve raises the same error when the replica itself cancelled the call.
            raise Unavailable(f"{who} cancelled the call; try again") from error
    if isinstance(answer, ServiceError):
        raise answer
    return answer


def _is_cancelled() -> bool:
    """Whether the current task is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class WriterHandle:
    """`services.Writer` over the actor; the handle finds the actor again after a restart or a hand-over."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._actor: ActorHandle[Any] | None = None

    async def ask(self, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a store method in the writer; see `services.Writer.ask`."""
        name = method.__qualname__
        timeout_s = BULK_TIMEOUT_S if name in BULK_METHODS else STORE_TIMEOUT_S
        try:
            async with service_errors("the writer"):
                if self._actor is None:
                    self._actor = await asyncio.to_thread(writer.find_or_start, self._settings)
                result: R = await asyncio.wait_for(self._actor.ask.remote(name, args, kwargs, logs.ids()), timeout_s)
                return result
        except Unavailable as error:
            if error.__cause__ is None:  # the store raised it, not Ray
                raise
            self._actor = None
            raise StoreUnavailable(error.detail) from error


class EmbedderHandle:
    """`services.Embedder` and `embed_job.FileEmbedder` over the DINOv2 deployments; each model has one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._handles: dict[str, DeploymentHandle[Any]] = {}

    async def describe(self, model: str) -> ModelCard:
        """See `services.Embedder.describe`."""
        return await self._call(model, "describe")

    async def embed_images(self, model: str, images: list[bytes]) -> Embedded:
        """See `services.Embedder.embed_images`."""
        embedded: Embedded = await self._call(model, "embed_images", images)
        return embedded

    async def embed_texts(self, model: str, texts: list[str]) -> Embedded:
        """See `services.Embedder.embed_texts`."""
        embedded: Embedded = await self._call(model, "embed_texts", texts)
        return embedded

    async def embed_files(self, model: str, root: str, files: list[SourceFile]) -> Block:
        """See `embed_job.FileEmbedder.embed_files`."""
        return await self._call(model, "embed_files", root, files)

    async def _call(self, model: str, method: str, *args: object) -> Any:
        """Call a replica of the model."""
        who = f"the embedder of {model}"
        if model not in self._handles:
            async with service_errors(who):
                application = await asyncio.to_thread(ensure_application, self._settings, model)
                self._handles[model] = serve.get_deployment_handle(DEPLOYMENT, application)
        return await ask(self._handles[model], method, *args, who=who, timeout_s=EMBED_TIMEOUT_S)


class ReducerHandle:
    """`loop.Projector` over the Reducer deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def warm(self) -> None:
        """Start compiling, without waiting for the answer."""
        self._handle.warm.remote()

    async def reduce(self, claim: Claim) -> None:
        """See `loop.Projector.reduce`."""
        await ask(self._handle, "reduce", claim, who="the reducer", timeout_s=None)

    async def graph(self, claim: Claim) -> None:
        """See `loop.Projector.graph`."""
        await ask(self._handle, "graph", claim, who="the reducer", timeout_s=None)


class RunnerHandle:
    """`services.Runner` over the JobRunner deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def nudge(self) -> None:
        """See `services.Runner.nudge`; the call does not wait for the answer."""
        self._handle.nudge.remote()


class SearcherHandle:
    """`services.Searcher` over the Searcher deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def ask(self, question: Callable[Concatenate[Any, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask the replica that holds the vectors; see `services.Searcher.ask`."""
        name = question.__qualname__
        return await ask(self._handle, "ask", name, args, kwargs, who="the searcher", timeout_s=SEARCH_TIMEOUT_S)
