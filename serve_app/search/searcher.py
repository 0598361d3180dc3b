"""Asks the questions of `Neighbours` by name, so that one method can carry all questions between processes."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from serve_app.errors import InvalidRequest
from serve_app.policy import MAX_PAIRWISE_ROWS
from serve_app.search.neighbours import Neighbours
from serve_app.services import Writer

P = ParamSpec("P")
R = TypeVar("R")

QUESTIONS: Mapping[str, Callable[..., Awaitable[object]]] = {
    method.__qualname__: method
    for name, method in vars(Neighbours).items()
    if inspect.iscoroutinefunction(method) and not name.startswith("_")
}
"""The questions that can be asked: the public methods of `Neighbours` by qualified name."""


class LocalSearcher:
    """A `services.Searcher` that maps the vectors into this process; `folder` holds their files; see `Neighbours`."""

    def __init__(self, writer: Writer, folder: Path, *, max_pairwise_rows: int = MAX_PAIRWISE_ROWS) -> None:
        self._neighbours = Neighbours(writer, folder, max_pairwise_rows=max_pairwise_rows)

    async def ask(self, question: Callable[Concatenate[Any, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """See `services.Searcher.ask`. Raises `InvalidRequest` if `question` is no method of `Neighbours`."""
        return cast(R, await self.ask_named(question.__qualname__, args, kwargs))

    async def ask_named(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Do what `ask` does, for callers in other processes: they send the name ("Neighbours.similar")."""
        question = QUESTIONS.get(name)
        if question is None:
            raise InvalidRequest(f"there is no question '{name}'")
        return await question(self._neighbours, *args, **kwargs)
