"""The default model as clients see it: its card, its names, and whether it answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from serve_app.embedding.weights import REPOSITORIES
from serve_app.errors import ModelUnavailable
from serve_app.records import ModelCard
from serve_app.services import Services

PATIENCE_S = 3.0
"""A loading model answers in a minute, a busy one in seconds; LightlyStudio's check gives up after five seconds."""
SPACE_DIGITS = 12


class ServedModel:
    """Asks for the default model's card; `last` is the newest answer."""

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
        services = self._find_services()
        try:
            async with asyncio.timeout(PATIENCE_S):
                self.last = await services.embedder.describe(services.settings.model)
        except TimeoutError:
            if self.last is None:
                raise ModelUnavailable("The model is still loading; try again in a few seconds.") from None
        return self.last


def names_of(card: ModelCard) -> tuple[str, ...]:
    """The names that callers may use for the model, the preferred name first.

    The preferred name ends in the first digits of the space key. A client that caches vectors by model name, as
    Embedding Atlas does, then asks again when the space changes, and never mixes vectors of different spaces.
    """
    short = Path(card.name).name
    pinned = f"{short}@{card.space_key[:SPACE_DIGITS]}"
    return tuple(dict.fromkeys((pinned, short, card.name, REPOSITORIES.get(card.name, short))))
