"""What the HTTP layer and the job loop need from the rest of the system, as protocols.

On a cluster `deployments.handles` implements them with an actor and Serve handles; in unit tests a real
store on a temporary folder and small fakes do. Every method may raise `Unavailable` (503).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve_app.config import Settings
from serve_app.policy import Policy
from serve_app.records import ModelCard, Skip

P = ParamSpec("P")
R = TypeVar("R")


class Writer(Protocol):
    """The only way to the database: names a method of the store's parts and awaits its result.

    `await writer.ask(Jobs.create, dataset_id, "embed")` runs `Jobs.create` in the process that owns the
    file. Methods marked `@write` run one at a time; the others run beside them on a snapshot.
    """

    async def ask(self, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a store method and return its result, or raise its `ServiceError`.

        Raises:
            StoreUnavailable: the writer is away, handing over, or cannot use its file.
        """
        ...


Outcomes = list[NDArray[np.float32] | Skip]
"""One (D,) vector or one skip an image, in input order."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What became of images, and the model that gave the vectors: asked before, it may have been another one."""

    card: ModelCard
    outcomes: Outcomes


class Embedder(Protocol):
    """Vectors for images that arrive as bytes."""

    async def describe(self, model: str) -> ModelCard:
        """Say what the model is.

        Raises:
            ModelUnavailable: its weights cannot be had; the message names the ways to get them.
        """
        ...

    async def embed_images(self, model: str, images: list[bytes]) -> Embedded:
        """Embed encoded images. Raises `ModelUnavailable` as `describe` does."""
        ...


class Searcher(Protocol):
    """Answers questions about a dataset's vectors: names a method of `search.neighbours.Neighbours`, awaits its answer.

    `await searcher.ask(Neighbours.similar, dataset_id, sample_id, 10)` asks the process that holds the vectors.
    """

    async def ask(self, question: Callable[Concatenate[Any, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask a question and return its answer, or raise its `ServiceError`."""
        ...


class Runner(Protocol):
    """The job loop."""

    async def nudge(self) -> None:
        """Look for a claimable job now instead of at the next poll; never fails."""
        ...


def _tell_nobody(n_streams: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Services:
    """Everything `create_app` needs."""

    settings: Settings
    policy: Policy
    writer: Writer
    embedder: Embedder
    searcher: Searcher
    runner: Runner
    on_streams: Callable[[int], object] = _tell_nobody
    """Told now and then how many progress streams are open."""
