"""Shows the progress of a job: a live bar on a terminal, and otherwise plain lines."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as RichProgress

from constellate.client import last_state
from constellate.records import Progress

LINE_EVERY_S = 5.0
LINE_EVERY_SHARE = 0.1


class View(Protocol):
    """A context manager that shows the states of one job."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, state: Progress) -> None:
        """Show a state or ignore it."""
        ...


def view(console: Console, title: str) -> View:
    """A bar on a terminal, and otherwise lines."""
    return Bar(console, title) if console.is_terminal else Lines(console, title)


def watch(states: Iterable[Progress], console: Console, title: str) -> Progress:
    """Show the states of a job and return the last one."""
    with view(console, title) as shown:
        return last_state(states, shown.show)


class Bar:
    """A live bar with count, rate, time left and skipped images."""

    def __init__(self, console: Console, title: str) -> None:
        self._bar = RichProgress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self._task = self._bar.add_task(title, total=None, note="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, state: Progress) -> None:
        """Redraw the bar."""
        self._bar.update(self._task, completed=state.processed, total=state.total or None, note=note(state))


class Lines:
    """Prints a line at the start and at the end, and in between after 5 s or 10 %, whichever comes first."""

    def __init__(self, console: Console, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._title = title
        self._clock = clock
        self._printed_at_s: float | None = None
        self._printed: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, state: Progress) -> None:
        """Print a line when one is due."""
        if not self._is_due(state):
            return
        self._printed_at_s, self._printed = self._clock(), state
        share = f"/{state.total} ({state.processed / state.total:.0%})" if state.total else ""
        parts = [f"{self._title}: {state.processed}{share}", note(state)]
        line = ", ".join(part for part in parts if part)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _is_due(self, state: Progress) -> bool:
        if self._printed is None or self._printed_at_s is None:
            return True
        if state.is_terminal:
            return not self._printed.is_terminal
        gained = state.processed - self._printed.processed
        if state.total and gained >= LINE_EVERY_SHARE * state.total:
            return True
        return self._clock() - self._printed_at_s >= LINE_EVERY_S


@contextmanager
def waiting(console: Console) -> Iterator[Callable[[str], None]]:
    """Show a spinner on a terminal, and otherwise print each new reason for waiting once."""
    if console.is_terminal:
        with console.status("Starting …") as status:
            yield lambda reason: status.update(f"Starting: {escape(reason)} …")
        return
    told: set[str] = set()

    def say(reason: str) -> None:
        if reason not in told:
            told.add(reason)
            console.print(f"Waiting: {reason}", markup=False, highlight=False, soft_wrap=True)

    yield say


def note(state: Progress) -> str:
    """A text beside the count: the speed, the time left and the number of skips, or the service's message."""
    parts = []
    if state.rate:
        parts.append(f"{state.rate:.1f} images/s")
    if state.eta_s is not None and not state.is_terminal:
        parts.append(f"{duration(state.eta_s)} left")
    if state.skipped:
        parts.append(f"{state.skipped} skipped")
    if not parts and not state.is_terminal:
        parts.append(state.message)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """A duration as text, such as `7 s`, `3 min 20 s` or `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
