"""What people do with the service from Python: embed a folder, follow a job, bring vectors along.

`Routes` speaks each route; here are the few steps that most programs take together. The command line takes the
same ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from constellate.dataset_sources import absolute, is_of, name_of
from constellate.following import follow
from constellate.records import DatasetInfo, EmbeddingsInfo, JobInfo, JobKind, Progress, SkipInfo
from constellate.routes import Routes
from constellate.wire import Refused

T = TypeVar("T")

OnProgress = Callable[[Progress], object]
Wait = Callable[[JobInfo], None]
"""Returns when a job is over."""
Watch = Callable[[Iterator[Progress], JobKind], Progress]
"""Takes the states of a job and returns the last one."""


class JobFailed(Exception):
    """A job ended without what it was started for; `progress` is its last state."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress)
        self.progress = progress

    def __str__(self) -> str:
        return f"job {self.progress.job_id} ended as {self.progress.status}: {self.progress.message}"


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """What has become of a folder."""

    dataset: DatasetInfo
    embeddings: EmbeddingsInfo
    skipped: list[SkipInfo]

    @property
    def id(self) -> str:
        """The dataset's id, which most other calls want."""
        return self.dataset["id"]


class Constellate(Routes):
    """The service at an address.

        with Constellate("http://127.0.0.1:8000") as service:
            photos = service.embed_folder("photos", on_progress=print)
            service.export(photos.id, Path("photos.parquet"))

    Every call raises `Refused` with the service's reason, or `Unreachable` where nothing answers.
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
        """Embed a folder that the service can read, and lay out its map; later calls embed what changed.

        A job of the folder that runs already is waited for first.

        Args:
            path: the folder, whose sub-folders become labels; or a manifest, tar or Parquet file, or a URL.
            name: of the dataset; the folder's own by default.
            model: the service's default where absent.
            with_map: whether to compute the 2D map too.
            on_progress: is called with every state of every job.

        Raises:
            JobFailed: a job ended without vectors or map.
            Refused: the service says why not, for instance that the folder is outside its roots.
            Unreachable: nothing answers.
        """

        def watch(states: Iterator[Progress], kind: JobKind) -> Progress:
            return last_state(states, on_progress)

        def wait(job: JobInfo) -> None:
            watch(self.follow(job["dataset_id"], job["id"], job["kind"]), job["kind"])

        dataset, _ = open_folder(self, absolute(str(path)), name, wait)
        finish_job(self, dataset["id"], "embed", lambda: self.generate(dataset["id"], model_name=model), wait, watch)
        if with_map:
            finish_job(self, dataset["id"], "reduce", lambda: self.reduce(dataset["id"]), wait, watch)
        return EmbeddedFolder(dataset, self.embeddings(dataset["id"]), list(self.skipped(dataset["id"])))

    def follow(self, dataset_id: str, job_id: str, kind: JobKind) -> Iterator[Progress]:
        """The states of a job up to its last one, over dropped connections; see `following.follow`."""
        return follow(self, dataset_id, job_id, kind)


def last_state(states: Iterator[Progress], on_progress: OnProgress | None = None) -> Progress:
    """Tell every state and return the last one."""
    last = None
    for last in states:
        if on_progress is not None:
            on_progress(last)
    if last is None:
        raise ValueError("a job has at least one state")
    return last


def open_folder(client: Routes, root: str, name: str | None, wait: Wait) -> tuple[DatasetInfo, dict[str, int] | None]:
    """The dataset of a folder, file or URL, brought up to date, and what a rescan changed: None when it is new.

    Args:
        client: the service.
        root: what `dataset_sources.absolute` made of it.
        name: of the dataset; the folder's own by default.
        wait: returns when a job is over; called where one forbids the rescan.

    Raises:
        Refused: among others (409, with `dataset_id`) that a dataset of another folder has the name.
    """
    known = [d for d in client.datasets() if is_of(d, root) and name in (None, d["name"])]
    if not known:
        return client.register(name or name_of(root), root), None
    dataset_id = known[0]["id"]
    change = after_running_jobs(client, lambda: client.rescan(dataset_id), wait)
    return client.dataset(dataset_id), change


def finish_job(
    client: Routes, dataset_id: str, kind: JobKind, start: Callable[[], str], wait: Wait, watch: Watch
) -> Progress:
    """Start a job, after any that runs, and return its last state.

    Raises:
        JobFailed: it ended without what it was started for.
    """
    job_id = after_running_jobs(client, start, wait)
    end = watch(follow(client, dataset_id, job_id, kind), kind)
    if end.status != "complete":
        raise JobFailed(end)
    return end


def after_running_jobs(client: Routes, call: Callable[[], T], wait: Wait) -> T:
    """The result of a call that a running job of the dataset forbids, made when none runs any more.

    Such a job is what an earlier, interrupted program left: the service finishes it, and what it embeds is not
    embedded again.
    """
    while True:
        try:
            return call()
        except Refused as refused:
            job_id = refused.problem.get("job_id")
            if refused.status != 409 or not job_id:
                raise
        wait(client.job(str(job_id)))
