"""Answers of small reads, kept until the next write begins: each search and each poll of a client asks for them."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

MAX_ANSWERS = 1000


class ReadCache:
    """What reads found since the last write; the class is thread-safe.

    Nothing is kept or given while a write is under way, so that no caller sees a state and then the one before it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answers: dict[Hashable, object] = {}
        self._generation = 0
        self._is_writing = False

    def get(self, key: Hashable) -> object | None:
        """The kept answer; None if there is none."""
        with self._lock:
            return self._answers.get(key)

    def fill(self, key: Hashable, read: Callable[[], object]) -> object:
        """The answer of a read, which is kept unless a write began meanwhile; the oldest of too many is forgotten."""
        with self._lock:
            generation = self._generation
        answer = read()
        with self._lock:
            if generation == self._generation and not self._is_writing:
                self._answers[key] = answer
                if len(self._answers) > MAX_ANSWERS:
                    del self._answers[next(iter(self._answers))]
        return answer

    def quiet(self) -> int | None:
        """A number that the next write or checkpoint changes; None while one is under way.

        Where it was the same before a session began and later, that session sees what is on disk.
        """
        with self._lock:
            return None if self._is_writing else self._generation

    def forget(self) -> None:
        """Read everything anew."""
        with self._lock:
            self._answers.clear()
            self._generation += 1

    @contextmanager
    def write(self) -> Iterator[None]:
        """The time of a write, after which all answers are read anew, also if it failed. Writes do not overlap."""
        self._is_writing = True
        self.forget()
        try:
            yield
        finally:
            self.forget()
            self._is_writing = False
