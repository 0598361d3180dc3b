"""The protocols through which the HTTP layer and the job loop use the rest of the system.

On a cluster, `deployments.handles` implements them with an actor and Serve handles; unit tests use a real store in a
temporary folder and small fakes. Every method may raise `Unavailable` (503), unless it says otherwise.
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
    """The only way to the database: callers name a method of the store's parts and await its result.

    `await writer.ask(Jobs.create, dataset_id, "embed")` runs `Jobs.create` in the process that owns the file. Methods
    marked `@write` run one at a time; other methods run in parallel to them on a snapshot.
    """

    async def ask(self, method: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a store method and return its result, or raise its `ServiceError`.

        Raises:
            StoreUnavailable: the writer does not run, is handing over, or cannot use its file.
        """
        ...


Outcomes = list[NDArray[np.float32] | Skip]
"""One (D,) vector or one skip for each image, in input order."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The outcomes of embedding images or texts, and the card of the model that made the vectors.

    The card may change any time. `cut` has the positions of texts that were longer than the model takes.
    """

    card: ModelCard
    outcomes: Outcomes
    cut: tuple[int, ...] = ()

    @property
    def vectors(self) -> list[NDArray[np.float32]]:
        """The outcomes that are vectors, in their order."""
        return [outcome for outcome in self.outcomes if not isinstance(outcome, Skip)]


class Embedder(Protocol):
    """Makes vectors of images that arrive as bytes, and of texts."""

    async def describe(self, model: str) -> ModelCard:
        """The model's card.

        Raises:
            ModelUnavailable: the weights cannot be found or loaded; the message names the ways to get them.
        """
        ...

    async def embed_images(self, model: str, images: list[bytes]) -> Embedded:
        """Embed encoded images. Raises `ModelUnavailable` as `describe` does."""
        ...

    async def embed_texts(self, model: str, texts: list[str]) -> Embedded:
        """Embed texts, in the space of the model's images; every outcome is a vector.

        Raises:
            ModelUnavailable: as `describe` does.
            NoTextTower: the model takes no text.
            InvalidRequest: a text is empty, too long for a tokenizer, or holds a lone surrogate.
        """
        ...


class Searcher(Protocol):
    """Answers questions about a dataset's vectors; callers name a method of `search.findings.Findings`.

    `await searcher.ask(Neighbours.similar, dataset_id, sample_id, 10)` asks the process that has the vectors in memory.
    """

    async def ask(self, question: Callable[Concatenate[Any, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Ask a question and return its answer, or raise its `ServiceError`."""
        ...


class Runner(Protocol):
    """The job loop, as seen by other processes."""

    async def nudge(self) -> None:
        """Make the loop look for a job now and not at its next poll; the call never fails."""
        ...


def _tell_nobody(n_streams: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that `create_app` needs."""

    settings: Settings
    policy: Policy
    writer: Writer
    embedder: Embedder
    searcher: Searcher
    runner: Runner
    on_streams: Callable[[int], object] = _tell_nobody
    """A callback that regularly gets the number of open progress streams."""
