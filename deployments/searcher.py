"""`Searcher`: finds nearest neighbours in mapped files, without loading the writer."""

from typing import Any

from deployments.handles import WriterHandle
from deployments.loopback import keep_replica_here
from serve_app import logs
from serve_app.config import Settings
from serve_app.errors import ServiceError
from serve_app.search.searcher import LocalSearcher


class Searcher:
    """The searcher has one replica and returns `ServiceError`s as values."""

    def __init__(self, settings: Settings) -> None:
        logs.to_stderr("Searcher")
        keep_replica_here()
        self._searcher = LocalSearcher(WriterHandle(settings), settings.sets_path)

    async def ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer to the question `name` of `Neighbours`, or its `ServiceError`."""
        try:
            return await self._searcher.ask_named(name, args, kwargs)
        except ServiceError as error:
            return error
