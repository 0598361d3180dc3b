"""What the HTTP layer and the job loop need from the rest of the system, as protocols.

On a cluster `deployments.handles` implements them with an actor and Serve handles; in unit tests a real
store on a temporary folder and small fakes do. Every method may raise `Unavailable` (503).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serve_app.config import Settings
from serve_app.policy import Policy
from serve_app.records import ModelCard, Neighbour, Skip

P = ParamSpec("P")
R = TypeVar("R")


class Writer(Protocol):
    """The only way to the database: names a method of the store's parts and awaits its result.

    `await writer.call(Jobs.create, dataset_id, "embed")` runs `Jobs.create` in the process that owns the
    file. Methods marked `@write` run one at a time; the others run beside them on a snapshot.
    """

    async def call(self, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
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

    async def embed(self, model: str, images: list[bytes]) -> Embedded:
        """Embed encoded images. Raises `ModelUnavailable` as `describe` does."""
        ...


class Neighbours(Protocol):
    """Questions about a dataset's current vectors, by cosine similarity."""

    async def similar(self, dataset_id: str, sample_id: str, limit: int) -> list[Neighbour]:
        """The most similar samples, best first, never the sample itself."""
        ...

    async def search(self, dataset_id: str, query: NDArray[np.float32], space_key: str, limit: int) -> list[Neighbour]:
        """The samples most similar to a (D,) query of the same vector space.

        Raises:
            Conflict: the dataset's vectors are of another space.
        """
        ...

    async def duplicates(self, dataset_id: str, threshold: float) -> list[list[Neighbour]]:
        """Groups of samples whose links have cosine >= threshold; `score` is the best link in the group."""
        ...

    async def outliers(self, dataset_id: str, k: int, limit: int) -> list[Neighbour]:
        """The samples with the lowest mean similarity to their k nearest neighbours, lowest first."""
        ...

    async def diverse(self, dataset_id: str, n: int) -> list[Neighbour]:
        """`n` samples that cover the dataset (k-centre greedy), in the order chosen."""
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
    neighbours: Neighbours
    runner: Runner
    on_streams: Callable[[int], object] = _tell_nobody
    """Told now and then how many progress streams are open."""
