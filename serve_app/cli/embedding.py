"""The steps from a folder to vectors, a map and a Parquet file, with progress on a console."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from rich.console import Console

from constellate import Constellate, JobFailed, Refused
from constellate.client import Watch, finish_job, open_folder, with_graph
from constellate.dataset_sources import name_of
from constellate.following import follow
from constellate.records import DatasetInfo, JobInfo, JobKind, Progress
from serve_app.cli.commands import UsageError
from serve_app.cli.output import counted, summarize_skips
from serve_app.cli.progress import watch
from serve_app.cli.service import raise_if_model_unavailable

T = TypeVar("T")

TITLES: dict[JobKind, str] = {
    "embed": "Embedding",
    "reduce": "Mapping",
    "import": "Importing",
    "graph": "Comparing",
    "register": "Listing",
    "rescan": "Listing",
}


class ListingInterrupted(KeyboardInterrupt):
    """Ctrl-C while files were listed; the message is the id of the job."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The jobs of one dataset, with their progress on a console."""

    client: Constellate
    console: Console
    dataset: DatasetInfo
    notify_url: str | None = None

    def generate(self, *, model_name: str | None = None, force: bool = False) -> Progress:
        """Generate vectors, print which images were skipped, and return the job's last state.

        Raises:
            JobFailed: the job ended without vectors.
            ModelUnavailable: the job failed because its model is not available.
        """
        try:
            return self._run(
                "embed",
                lambda: self.client.generate(
                    self.dataset["id"], model_name=model_name, force=force, notify_url=self.notify_url
                ),
            )
        finally:
            summarize_skips(list(self.client.skipped(self.dataset["id"])), self.console)

    def reduce(self, *, redraw: bool = False, model: str | None = None) -> Progress:
        """Compute the 2D map, or place new images on it, and return the job's last state. Raises `JobFailed`."""
        return self._run(
            "reduce",
            lambda: self.client.reduce(self.dataset["id"], redraw=redraw, notify_url=self.notify_url, model=model),
        )

    def _run(self, kind: JobKind, start: Callable[[], str]) -> Progress:
        try:
            return finish_job(
                self.client, self.dataset["id"], kind, start, waiting_for_jobs(self.client, self.console), self._watch
            )
        except JobFailed as failed:
            raise_if_model_unavailable(failed.progress.message)
            raise

    def _watch(self, states: Iterator[Progress], kind: JobKind) -> Progress:
        return watch(states, self.console, TITLES[kind])


def open_dataset(
    client: Constellate, console: Console, root: str, name: str | None, notify_url: str | None = None
) -> DatasetInfo:
    """The dataset of a folder, file or URL; it is registered on first use and rescanned afterwards.

    `notify_url` is told when its files are listed.

    Raises:
        UsageError: the name belongs to a dataset of another folder.
        ListingInterrupted: Ctrl-C came while the files were listed.
    """
    try:
        dataset, rescanned = open_folder(
            client, root, name, waiting_for_jobs(client, console), _listing(console), notify_url
        )
    except Refused as refused:
        if refused.status == 409 and "dataset_id" in refused.problem:
            taken = name or name_of(root)
            raise UsageError(f"a dataset of another folder is called {taken!r}; give this one a --name") from None
        raise
    if rescanned is None:
        told = f"Registered {dataset['name']!r}: {counted(dataset['sample_count'])}"
    else:
        told = f"Rescanned {dataset['name']!r}: {rescanned.message}"
    console.print(told, markup=False, highlight=False)
    for notice in dataset.get("notices", ()):
        console.print(f"  {notice}", markup=False, highlight=False)
    return dataset


def asked(client: Constellate, dataset_id: str, ask: Callable[[], T], console: Console, model: str | None = None) -> T:
    """The answer to a question; the graph that a large set needs first is made under a bar. Raises `JobFailed`."""
    return with_graph(client, dataset_id, ask, waiting_for_jobs(client, console), shown(console), model)


def shown(console: Console) -> Watch:
    """A function that shows the states of a job and returns the last one."""
    return lambda states, kind: watch(states, console, TITLES[kind])


def _listing(console: Console) -> Watch:
    """As `shown`; raises `ListingInterrupted` at Ctrl-C, since only the job's id names what has no dataset yet."""

    def show(states: Iterator[Progress], kind: JobKind) -> Progress:
        first = next(states)
        try:
            return watch(chain([first], states), console, TITLES[kind])
        except KeyboardInterrupt:
            raise ListingInterrupted(first.job_id) from None

    return show


def waiting_for_jobs(client: Constellate, console: Console) -> Callable[[JobInfo], None]:
    """A function that shows the progress of a running job until the job is over."""

    def wait(job: JobInfo) -> None:
        console.print("A job of this dataset is already running; finishing it first", highlight=False)
        watch(follow(client, job["dataset_id"], job["id"], job["kind"]), console, TITLES[job["kind"]])

    return wait
