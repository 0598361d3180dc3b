"""Asks the questions of `Neighbours` and `Findings` by name, so that one method carries all between processes."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from serve_app.errors import InvalidRequest
from serve_app.policy import MAX_PAIRWISE_ROWS
from serve_app.search.findings import Findings
from serve_app.search.neighbours import Neighbours
from serve_app.services import Writer

P = ParamSpec("P")
R = TypeVar("R")

QUESTIONS: Mapping[str, Callable[..., Awaitable[object]]] = {
    method.__qualname__: method
    for owner in (Neighbours, Findings)
    for name, method in vars(owner).items()
    if inspect.iscoroutinefunction(method) and not name.startswith("_")
}
"""The questions that can be asked: the public methods of both by qualified name."""


class LocalSearcher:
    """A `services.Searcher` that maps the vectors into this process; `folder` holds their files; see `Findings`."""

    def __init__(self, writer: Writer, folder: Path, *, max_pairwise_rows: int = MAX_PAIRWISE_ROWS) -> None:
        self._findings = Findings(writer, folder, max_pairwise_rows=max_pairwise_rows)

    async def ask(self, question: Callable[Concatenate[Any, P], Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """See `services.Searcher.ask`. Raises `InvalidRequest` if `question` is no method of `Findings`."""
        return cast(R, await self.ask_named(question.__qualname__, args, kwargs))

    async def ask_named(self, name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Do what `ask` does, for callers in other processes: they send the name ("Neighbours.similar")."""
        question = QUESTIONS.get(name)
        if question is None:
            raise InvalidRequest(f"there is no question '{name}'")
        return await question(self._findings, *args, **kwargs)
