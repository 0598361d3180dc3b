"""The client for programs: it embeds a folder and follows jobs in one call each.

`Routes` has a method for each route. This module adds the steps that most programs combine; the command line uses them
too.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from constellate.dataset_sources import absolute, is_of, name_of
from constellate.following import follow
from constellate.records import DatasetInfo, EmbeddingsInfo, JobInfo, JobKind, Progress, SkipInfo, Started
from constellate.routes import Routes
from constellate.wire import Refused

T = TypeVar("T")

OnProgress = Callable[[Progress], object]
Wait = Callable[[JobInfo], None]
"""A function that returns when the job is over."""
Watch = Callable[[Iterator[Progress], JobKind], Progress]
"""A function that consumes the states of a job and returns the last one."""


class JobFailed(Exception):
    """A job did not end as `complete`; `progress` is its last state."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self.progress = progress

    def __str__(self) -> str:
        return f"job {self.progress.job_id} ended as {self.progress.status}: {self.progress.message}"


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """The dataset of a folder, the state of its vectors and map, and its skips."""

    dataset: DatasetInfo
    embeddings: EmbeddingsInfo
    skipped: list[SkipInfo]

    @property
    def id(self) -> str:
        """The dataset's id, which most other calls need."""
        return self.dataset["id"]


class Constellate(Routes):
    """The service at an address.

        with Constellate("http://127.0.0.1:8000") as service:
            photos = service.embed_folder("photos", on_progress=print)
            service.export(photos.id, Path("photos.parquet"))

    Every call raises `Refused` with the service's reason, or `Unreachable` if the service does not answer.
    """

    def embed_folder(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        model: str | None = None,
        with_map: bool = True,
        on_progress: OnProgress | None = None,
    ) -> EmbeddedFolder:
        """Embed a folder that the service can read, and compute its map; later calls embed only changed images.

        If a job of the dataset is already running, the call waits for it first.

        Args:
            path: a folder, whose sub-folders become labels; or a manifest, tar or Parquet file, or a URL.
            name: the dataset's name, by default the folder's.
            model: the model's name, by default the service's default model; not for what `constellate bulk` wrote.
            with_map: whether to compute the 2D map too.
            on_progress: a callback for every state of every job.

        Raises:
            ValueError: a model is named for what `constellate bulk` wrote, which has its vectors already.
            JobFailed: a job ended without vectors or map.
            Refused: the service refused the call and says why, for example because the folder is outside its roots.
            Unreachable: the service does not answer.
        """
        wait, watch = self._steps(on_progress)
        dataset, _ = open_folder(self, absolute(str(path)), name, wait, watch)
        dataset_id = dataset["id"]
        if dataset["format"] == "bulk":
            made_with = wait_for_vectors(self, dataset, watch, model)
        else:
            made_with = None
            finish_job(self, dataset_id, "embed", lambda: self.generate(dataset_id, model_name=model), wait, watch)
        if with_map:
            finish_job(self, dataset_id, "reduce", lambda: self.reduce(dataset_id, model=made_with), wait, watch)
        return EmbeddedFolder(dataset, self.embeddings(dataset_id, model=made_with), list(self.skipped(dataset_id)))

    def register_folder(
        self, path: str | Path, *, name: str | None = None, on_progress: OnProgress | None = None
    ) -> DatasetInfo:
        """Make a folder that the service can read a dataset, or list it again, and wait for the end.

        Args:
            path: as for `embed_folder`.
            name: the dataset's name, by default the folder's.
            on_progress: a callback for every state of the listing; `processed` counts the files so far.

        Raises:
            JobFailed: the folder could not be listed; the message says why.
            Refused: the service refused the call and says why.
        """
        return open_folder(self, absolute(str(path)), name, *self._steps(on_progress))[0]

    def make_graph(
        self, dataset_id: str, *, k: int = 15, model: str | None = None, on_progress: OnProgress | None = None
    ) -> Progress:
        """Find `k` neighbours of every vector and wait for the end; large sets need it for duplicates and outliers.

        Without it they are refused with 409 `graph_needed` and the `k` that will do. Returns the job's last state.

        Raises:
            JobFailed: the job ended without a graph.
        """
        wait, watch = self._steps(on_progress)
        return finish_job(self, dataset_id, "graph", lambda: self.graph(dataset_id, k=k, model=model), wait, watch)

    def _steps(self, on_progress: OnProgress | None) -> tuple[Wait, Watch]:
        """What `finish_job` needs to wait for a job, and to tell of its states."""

        def watch(states: Iterator[Progress], kind: JobKind) -> Progress:
            return last_state(states, on_progress)

        def wait(job: JobInfo) -> None:
            watch(self.follow(job["dataset_id"], job["id"], job["kind"]), job["kind"])

        return wait, watch

    def follow(self, dataset_id: str, job_id: str, kind: JobKind) -> Iterator[Progress]:
        """The states of a job up to the last one, even if connections drop; see `following.follow`."""
        return follow(self, dataset_id, job_id, kind)


def last_state(states: Iterable[Progress], on_progress: OnProgress | None = None) -> Progress:
    """Pass every state to `on_progress` and return the last one."""
    last = None
    for last in states:
        if on_progress is not None:
            on_progress(last)
    if last is None:
        raise ValueError("a job has at least one state")
    return last


def open_folder(
    client: Routes, root: str, name: str | None, wait: Wait, watch: Watch, notify_url: str | None = None
) -> tuple[DatasetInfo, Progress | None]:
    """Register or rescan the dataset of a folder, file or URL; return it, and of a rescan job the last state.

    Args:
        client: the service.
        root: the folder, file or URL as `dataset_sources.absolute` returns it.
        name: the dataset's name, by default the folder's.
        wait: returns when a job is over; it is called if a running job forbids the listing.
        watch: consumes the states of the listing.
        notify_url: is told when the listing ends.

    Raises:
        JobFailed: the folder could not be listed.
        Refused: for example (409, with `dataset_id`) a dataset of another folder has the name.
    """
    known = [d for d in client.datasets() if is_of(d, root) and name in (None, d["name"])]
    if known:
        dataset_id = known[0]["id"]
        started = after_running_jobs(client, lambda: client.start_rescan(dataset_id, notify_url=notify_url), wait)
        end = _end_of(client, started, "rescan", watch)
        return client.dataset(dataset_id), end
    try:
        started = client.start_register(name or name_of(root), root, notify_url=notify_url)
    except Refused as refused:
        job_id = refused.problem.get("job_id")
        if not job_id:
            raise
        wait(client.job(str(job_id)))  # an interrupted program began it
        return open_folder(client, root, name, wait, watch, notify_url)
    _end_of(client, started, "register", watch)
    return client.dataset(started.dataset_id), None


def _end_of(client: Routes, started: Started, kind: JobKind, watch: Watch) -> Progress | None:
    """The last state of a listing, None if there was no job to wait for. Raises `JobFailed`."""
    return None if started.job_id is None else _completed(client, started.dataset_id, started.job_id, kind, watch)


def _completed(client: Routes, dataset_id: str, job_id: str, kind: JobKind, watch: Watch) -> Progress:
    """The last state of a job. Raises `JobFailed`: it did not end as `complete`."""
    end = watch(follow(client, dataset_id, job_id, kind), kind)
    if end.status != "complete":
        raise JobFailed(end)
    return end


def finish_job(
    client: Routes, dataset_id: str, kind: JobKind, start: Callable[[], str], wait: Wait, watch: Watch
) -> Progress:
    """Wait for a running job of the dataset, start a new one, and return the new job's last state.

    Raises:
        JobFailed: the job did not end as `complete`.
    """
    return _completed(client, dataset_id, after_running_jobs(client, start, wait), kind, watch)


def wait_for_vectors(client: Routes, dataset: DatasetInfo, watch: Watch, model: str | None = None) -> str | None:
    """Wait for the import of the vectors that a dataset came with; return their model, None if no job tells it.

    Raises:
        ValueError: `model` is named; these vectors have one.
        JobFailed: the import failed.
    """
    if model is not None:
        name = dataset["name"]
        raise ValueError(f"{name!r} has the vectors that `constellate bulk` wrote; do not name a model for it")
    dataset_id = dataset["id"]
    newest = next((job for job in client.jobs() if (job["dataset_id"], job["kind"]) == (dataset_id, "import")), None)
    if newest is None:
        return None
    _completed(client, dataset_id, newest["id"], "import", watch)
    return client.job(newest["id"])["model_name"]


def with_graph(
    client: Routes, dataset_id: str, ask: Callable[[], T], wait: Wait, watch: Watch, model: str | None = None
) -> T:
    """The answer to a question; if the set of the model needs a graph first, make it and ask again.

    Raises:
        JobFailed: the job ended without a graph.
    """
    try:
        return ask()
    except Refused as refused:
        if refused.problem.get("code") != "graph_needed":
            raise
        k = int(refused.problem["k"])
    finish_job(client, dataset_id, "graph", lambda: client.graph(dataset_id, k=k, model=model), wait, watch)
    return ask()


def after_running_jobs(client: Routes, call: Callable[[], T], wait: Wait) -> T:
    """The result of a call; if a running job of the dataset forbids the call, wait for that job and repeat it.

    Usually an earlier, interrupted program started that job. The service finishes it, and the images that it embeds are
    not embedded again.
    """
    while True:
        try:
            return call()
        except Refused as refused:
            job_id = refused.problem.get("job_id")
            if refused.status != 409 or not job_id:
                raise
        wait(client.job(str(job_id)))
