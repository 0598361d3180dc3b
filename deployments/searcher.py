"""`Searcher`: nearest neighbours over vectors held in memory, off the writer's path."""

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.handles import WriterHandle
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.records import Neighbour
from serve_app.search.neighbours import VectorNeighbours

Answer = list[Neighbour] | list[list[Neighbour]] | ServiceError


class Searcher:
    """One replica. `ServiceError`s are answered as values."""

    def __init__(self, settings: Settings) -> None:
        logs.to_stderr("Searcher")
        self._neighbours = VectorNeighbours(WriterHandle(settings))

    async def similar(self, dataset_id: str, sample_id: str, limit: int) -> Answer:
        """See `services.Neighbours.similar`."""
        return await _answer(self._neighbours.similar, dataset_id, sample_id, limit)

    async def search(self, dataset_id: str, query: NDArray[np.float32], space_key: str, limit: int) -> Answer:
        """See `services.Neighbours.search`."""
        return await _answer(self._neighbours.search, dataset_id, query, space_key, limit)

    async def duplicates(self, dataset_id: str, threshold: float) -> Answer:
        """See `services.Neighbours.duplicates`."""
        return await _answer(self._neighbours.duplicates, dataset_id, threshold)

    async def outliers(self, dataset_id: str, k: int, limit: int) -> Answer:
        """See `services.Neighbours.outliers`."""
        return await _answer(self._neighbours.outliers, dataset_id, k, limit)

    async def diverse(self, dataset_id: str, n: int) -> Answer:
        """See `services.Neighbours.diverse`."""
        return await _answer(self._neighbours.diverse, dataset_id, n)


async def _answer(method: Callable[..., Awaitable[Any]], *args: object) -> Answer:
    try:
        result: Answer = await method(*args)
    except ServiceError as error:
        return error
    return result
