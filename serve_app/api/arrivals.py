"""The bytes of request bodies that a process holds now, in memory or on disk."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

from serve_app.errors import Saturated


class Arrivals:
    """The bytes that have arrived of all bodies whose requests are not answered yet."""

    def __init__(self, things: str) -> None:
        self._things = things
        self._n_bytes = 0

    def require_room(self, n_bytes: int, most: int) -> None:
        """Raise `HTTPException` 429 if so many bytes more are over the limit."""
        if self._n_bytes + n_bytes > most:
            # A form is parsed meanwhile, see `guards`; `problems` makes of it what it makes of `Saturated`.
            raise HTTPException(Saturated.status, f"Too many {self._things} are being received here; try again later.")

    @contextmanager
    def counting(self, most: int) -> Iterator[Callable[[int], None]]:
        """Count the bytes of one body until its request is answered; `count` raises as `require_room` does."""
        own = 0

        def count(n_bytes: int) -> None:
            nonlocal own
            self.require_room(n_bytes, most)
            own += n_bytes
            self._n_bytes += n_bytes

        try:
            yield count
        finally:
            self._n_bytes -= own
