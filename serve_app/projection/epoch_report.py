"""Progress of a layout: umap draws a bar, and a callback gets its numbers."""

from collections.abc import Callable

OnProgress = Callable[[str, int, int], None]
"""A callback with the arguments (phase, done, total); `reduce` raises what the callback raises."""


class EpochReport:
    """A text file for umap's progress bar (tqdm); it turns the text "12/500" into a call."""

    def __init__(self, phase: str, on_progress: OnProgress) -> None:
        self._phase, self._on_progress = phase, on_progress
        self._failure: Exception | None = None

    def write(self, text: str) -> None:
        """Report what a line of the bar says."""
        done, _, total = text.strip().partition("/")
        if not total or self._failure is not None:
            return
        try:
            self._on_progress(self._phase, int(done), int(total))
        except Exception as error:  # raised later, because tqdm never releases its lock when a write raises
            self._failure = error

    @property
    def options(self) -> dict[str, object]:
        """What tqdm is given so that it writes here twice a second."""
        return {"disable": False, "file": self, "bar_format": "{n}/{total}", "mininterval": 0.5}

    def flush(self) -> None:
        """Do nothing; no text is buffered."""

    def raise_failure(self) -> None:
        """Raise the exception that the callback raised, if any."""
        if self._failure is not None:
            raise self._failure
