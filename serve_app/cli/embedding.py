"""From a folder to vectors, a map and a Parquet file, step by step, told to a console."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from serve_app.answers import DatasetInfo, JobKind, Progress, SkipInfo
from serve_app.cli.commands import JobFailed, UsageError
from serve_app.cli.progress import watch
from serve_app.cli.service import raise_if_model_unavailable
from serve_app.client import Client, Refused
from serve_app.following import follow

T = TypeVar("T")

EXAMPLES = 3
TITLES: dict[JobKind, str] = {"embed": "Embedding", "reduce": "Mapping"}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One dataset on its way through the service."""

    client: Client
    console: Console
    dataset: DatasetInfo

    def embed(self, *, model_name: str | None = None, force: bool = False) -> Progress:
        """Generate vectors, say what was left out, and return the job's last state.

        Raises:
            JobFailed: the job ended without vectors.
            ModelUnavailable: for want of the model.
        """
        try:
            return self._run(
                "embed", lambda: self.client.generate(self.dataset["id"], model_name=model_name, force=force)
            )
        finally:
            summarize_skips(list(self.client.skipped(self.dataset["id"])), self.console)

    def reduce(self) -> Progress:
        """Compute the 2D map and return the job's last state. Raises `JobFailed`."""
        return self._run("reduce", lambda: self.client.reduce(self.dataset["id"]))

    def _run(self, kind: JobKind, start: Callable[[], str]) -> Progress:
        job_id = after_running_jobs(self.client, self.console, self.dataset["id"], start)
        last = watch(follow(self.client, self.dataset["id"], job_id, kind), self.console, TITLES[kind])
        if last.status == "complete":
            return last
        raise_if_model_unavailable(last.message)
        raise JobFailed(f"job {job_id} ended as {last.status}: {last.message}")


def open_dataset(client: Client, console: Console, root: Path, name: str | None) -> DatasetInfo:
    """The dataset of a folder, brought up to date: registered on first use, rescanned afterwards.

    Raises:
        UsageError: the name belongs to a dataset of another folder.
    """
    wanted = name or root.name or "root"
    known = [d for d in client.datasets() if Path(d["root"]) == root and name in (None, d["name"])]
    if not known:
        try:
            made = client.register(wanted, root)
        except Refused as refused:
            if refused.status == 409 and "dataset_id" in refused.problem:
                raise UsageError(f"a dataset of another folder is called {wanted!r}; give this one a --name") from None
            raise
        console.print(f"Registered {wanted!r}: {images(made['sample_count'])}", markup=False, highlight=False)
        return made
    dataset = known[0]
    change = after_running_jobs(client, console, dataset["id"], lambda: client.rescan(dataset["id"]))
    told = ", ".join(f"{count} {what}" for what, count in change.items() if count) or "nothing changed"
    console.print(f"Rescanned {dataset['name']!r}: {told}", markup=False, highlight=False)
    return client.dataset(dataset["id"])


def after_running_jobs(client: Client, console: Console, dataset_id: str, call: Callable[[], T]) -> T:
    """The result of a call that a running job of the dataset forbids, made when none runs any more.

    Such a job is what an earlier, interrupted command left: the service finishes it, and what it embeds
    is not embedded again.
    """
    while True:
        try:
            return call()
        except Refused as refused:
            job_id = refused.problem.get("job_id")
            if refused.status != 409 or not job_id:
                raise
        kind = client.job(str(job_id))["kind"]
        console.print("A job of this dataset is already running; finishing it first", highlight=False)
        watch(follow(client, dataset_id, str(job_id), kind), console, TITLES[kind])


def summarize_skips(skips: list[SkipInfo], console: Console) -> None:
    """Print how many images were left out and why, with a few names for each reason."""
    if not skips:
        return
    console.print(f"Skipped {images(len(skips))}:", highlight=False)
    for reason, count in Counter(skip["reason"] for skip in skips).most_common():
        of_reason = [skip for skip in skips if skip["reason"] == reason]
        names = ", ".join(skip["file_name"] for skip in of_reason[:EXAMPLES])
        more = " …" if count > EXAMPLES else ""
        console.print(f"  {count:>6}  {reason}: {names}{more}", markup=False, highlight=False, soft_wrap=True)


def images(count: int) -> str:
    """`1 image`, `1,200 images`."""
    return f"{count:,} image{'' if count == 1 else 's'}"
