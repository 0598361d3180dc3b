"""The default model as clients see it: its card, its names, and whether it answers."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from serve_app.embedding import weights
from serve_app.embedding.weights import REPOSITORIES
from serve_app.errors import DatasetNotFound, ModelUnavailable, UnknownModel
from serve_app.records import ModelCard
from serve_app.services import Services
from serve_app.store.datasets import Datasets
from serve_app.store.vectors import Vectors

PATIENCE_S = 3.0
"""A loading model answers in a minute, a busy one in seconds; LightlyStudio's check gives up after five seconds."""
SPACE_DIGITS = 12


class ServedModel:
    """Asks for the default model's card; `last` is the newest answer. Finds the other models that may be asked for."""

    def __init__(self, find_services: Callable[[], Services]) -> None:
        self._find_services = find_services
        self.last: ModelCard | None = None

    async def known(self) -> ModelCard:
        """The last card; the model is asked only if no card is known yet. Raises `ModelUnavailable`."""
        return self.last or await self.card()

    async def card(self) -> ModelCard:
        """Ask the model for its card. If it has answered before and is slow now, it is busy, and its last card counts.

        Raises:
            ModelUnavailable: the model is loading, or cannot be loaded.
        """
        try:
            self.last = await self._ask(self._find_services().settings.model)
        except TimeoutError:
            if self.last is None:
                raise ModelUnavailable("The model is still loading; try again in a few seconds.") from None
        return self.last

    async def named(self, name: str) -> ModelCard:
        """The card of the default model, or of a model of some dataset's vectors, by one of its names.

        Raises:
            ModelUnavailable: the model is loading, or cannot be loaded.
            UnknownModel: the name is none of them, or pins a space that the model no longer has.
        """
        card = await self.known()
        if name not in names_of(card):
            card = await self.card()  # the model may have been replaced since the last answer
        if name in names_of(card):
            return card
        for model in await self.others():
            if name.partition("@")[0] in plain_names(model):
                return await self._other(model, name)
        raise UnknownModel(f"{name!r} is not the model served here; that is {names_of(card)[0]!r}")

    async def others(self) -> list[str]:
        """The models of the datasets' vectors that this service can run, without the default one."""
        services = self._find_services()
        found: dict[str, None] = {}
        for dataset in await services.writer.ask(Datasets.all):
            try:
                status = await services.writer.ask(Vectors.status, dataset.id)
            except DatasetNotFound:  # it was just deleted
                continue
            for now in status.sets:
                with suppress(UnknownModel):  # the vectors were imported
                    found[await asyncio.to_thread(weights.resolve, now.model_name)] = None
        return [model for model in found if model != services.settings.model]

    async def _other(self, model: str, name: str) -> ModelCard:
        try:
            card = await self._ask(model)
        except TimeoutError:
            raise ModelUnavailable(f"{name} is still loading; try again in a few seconds.") from None
        if name not in names_of(card):
            raise UnknownModel(f"{name!r} is not the model served here; that is {names_of(card)[0]!r}")
        return card

    async def _ask(self, model: str) -> ModelCard:
        async with asyncio.timeout(PATIENCE_S):
            return await self._find_services().embedder.describe(model)


def names_of(card: ModelCard) -> tuple[str, ...]:
    """The names that callers may use for the model, the preferred name first.

    The preferred name ends in the first digits of the space key. A client that caches vectors by model name, as
    Embedding Atlas does, then asks again when the space changes, and never mixes vectors of different spaces.
    """
    pinned = f"{Path(card.name).name}@{card.space_key[:SPACE_DIGITS]}"
    return (pinned, *plain_names(card.name))


def plain_names(model: str) -> tuple[str, ...]:
    """The names of a model that say nothing of its space."""
    short = Path(model).name
    return tuple(dict.fromkeys((short, model, REPOSITORIES.get(model, short))))
