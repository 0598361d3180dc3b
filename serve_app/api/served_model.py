"""The default model as the clients of its vectors see it: what it is, and whether it answers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from serve_app.embedding.weights import REPOSITORIES
from serve_app.errors import ModelUnavailable
from serve_app.records import ModelCard
from serve_app.services import Services

PATIENCE_S = 3.0
"""A model that loads answers in a minute, one that is busy in seconds; LightlyStudio's check gives up after five."""
SPACE_DIGITS = 12


class ServedModel:
    """The default model's card; `last` is the newest answer."""

    def __init__(self, find_services: Callable[[], Services]) -> None:
        self._find_services = find_services
        self.last: ModelCard | None = None

    async def known(self) -> ModelCard:
        """The newest card there is, asked for only where there is none yet. Raises `ModelUnavailable`."""
        return self.last or await self.card()

    async def card(self) -> ModelCard:
        """The card, asked anew. A model that has answered before and takes its time now is busy: its last card holds.

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
    """The names that callers may give the model, the preferred one first.

    That one ends in the space's first digits: whoever caches vectors by model name (Embedding Atlas does) asks
    for new ones when the space changes, and never gets vectors of another space under a name that pins one.
    """
    short = Path(card.name).name
    pinned = f"{short}@{card.space_key[:SPACE_DIGITS]}"
    return tuple(dict.fromkeys((pinned, short, card.name, REPOSITORIES.get(card.name, short))))
