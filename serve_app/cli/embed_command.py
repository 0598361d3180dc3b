"""`constellate embed PATH` does everything for one folder, and starts a service if none runs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from constellate import Constellate, NothingThere, Unreachable
from constellate.client import wait_for_vectors
from constellate.dataset_sources import absolute, is_there, name_of, root_of
from constellate.records import JobInfo
from serve_app.cli.commands import INTERRUPTED, UsageError, add_command
from serve_app.cli.dataset_commands import Notify, file_stem, writable
from serve_app.cli.embedding import ListingInterrupted, Pipeline, open_dataset, shown
from serve_app.cli.output import console, counted
from serve_app.cli.service import POLL_S, LocalService, connect, interruptible
from serve_app.config import Settings
from serve_app.errors import UnknownModel
from serve_app.urls import is_url, split_roots

NOTICE_S = 12.0
"""Longer than a receiver of webhooks may be silent."""


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    add_command(app, embed, *(name for name in Settings.model_fields if name != "model"))


def embed(
    settings: Settings,
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A folder of images, whose sub-folders become labels; or a manifest, tar or Parquet file, or a URL.",
        ),
    ],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="the folder's name")] = None,
    model: Annotated[
        str | None, typer.Option(help="A DINOv2 model or a checkpoint folder.", show_default="the service's")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.", show_default="NAME.parquet")] = None,
    redraw: Annotated[
        bool, typer.Option("--redraw", help="Lay the whole map out anew. Otherwise images that are on it stay there.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave a service started for this running.")] = False,
    notify: Notify = None,
) -> None:
    """Embed a folder of images, compute its 2D map, and write both to a Parquet file.

    The command uses the running service, or starts one and stops it at the end. If the folder was embedded
    before, only new and changed images are embedded.

    After Ctrl-C, a service that was already running goes on with the job. A service that this command has
    started is stopped; if you repeat the command, it continues from there.

    With --notify, the URL gets a signed POST at the end of each job: listing, vectors, map. For a folder that
    `constellate bulk` wrote, these are listing and map.

    For example:

        constellate embed photos/
        constellate embed photos/ --model dinov2-small --out vectors.parquet
    """
    root = absolute(path)
    if not is_there(root):
        raise UsageError(f"no such folder: {path}")
    model = _absolute(model) if model else None
    target = writable(out or Path(f"{file_stem(name or name_of(root))}.parquet"))
    with interruptible(), _service(settings, root, model, keep=keep) as (client, is_temporary):
        try:
            with _telling(client) if notify is not None and is_temporary else nullcontext():
                _run(client, root, name, model, target, redraw=redraw, notify_url=notify)
        except KeyboardInterrupt as interrupt:
            job_id = str(interrupt) if isinstance(interrupt, ListingInterrupted) else None
            stop = f"Detached: the service goes on. `constellate cancel {job_id or name or root}` stops the job."
            _say(_goes_on(job_id) if is_temporary else stop)
            raise typer.Exit(INTERRUPTED) from None
        there = "`constellate serve` shows it at" if is_temporary else "see it at"
        _say(f"Map: {there} {client.url}/")


@contextmanager
def _service(settings: Settings, root: str, model: str | None, *, keep: bool) -> Iterator[tuple[Constellate, bool]]:
    """The running service, or a temporary one for the block, and whether it is temporary."""
    try:
        service: Constellate | LocalService = connect(settings)
    except NothingThere:
        service = LocalService(_settings_for(settings, root, model), console(), keep=keep)
    with service as client:
        yield client, isinstance(service, LocalService) and not keep


def _settings_for(settings: Settings, root: str, model: str | None) -> Settings:
    """The settings of a service that may read the folder and whose default model is the wanted one.

    Raises:
        UnknownModel, ModelUnavailable: the model is looked for, and downloaded with a progress bar, before the start.
    """
    from serve_app.embedding import weights

    allowed = root_of(root)
    if split_roots(allowed) != [allowed]:
        raise UsageError(f"a service cannot be given a folder with {os.pathsep!r} in its path: {root}")
    wanted = model or settings.model
    weights.locate(wanted)
    roots = dict.fromkeys((*settings.dataset_roots, allowed if is_url(allowed) else Path(allowed)))
    return settings.model_copy(update={"dataset_roots": tuple(roots), "model": wanted})


def _absolute(model: str) -> str:
    """The model's canonical name, which a service that was started in another folder understands too."""
    from serve_app.embedding import weights

    try:
        return weights.resolve(model)
    except UnknownModel:
        return model  # the service may know this name; if not, it refuses it


def _run(
    client: Constellate,
    root: str,
    name: str | None,
    model: str | None,
    target: Path,
    *,
    redraw: bool,
    notify_url: str | None,
) -> None:
    """Do all of it."""
    dataset = open_dataset(client, console(), root, name, notify_url)
    pipeline = Pipeline(client, console(), dataset, notify_url)
    if dataset["format"] == "bulk":
        if model is not None:
            raise UsageError(f"{root} has the vectors that `constellate bulk` wrote; leave --model out")
        made_with = wait_for_vectors(client, dataset, shown(console()))
        embedded = None
    else:
        made_with = None
        embedded = pipeline.generate(model_name=model)
    pipeline.reduce(redraw=redraw, model=made_with)
    client.export(dataset["id"], target, model=made_with)
    made = client.embeddings(dataset["id"], model=made_with)
    n_embedded = made["embedding_count"] if embedded is None else embedded.processed - embedded.skipped
    _say(f"{counted(n_embedded)} embedded with {made['model_name']}: {target}")


@contextmanager
def _telling(client: Constellate) -> Iterator[None]:
    """Give a service that ends with this command the time of a first try to tell of the jobs of the block."""
    before = {job["id"] for job in client.jobs()}
    try:
        yield
    finally:
        with suppress(Unreachable):  # the service has died, which the block says
            _await_notices(client, before)


def _await_notices(client: Constellate, before: set[str]) -> None:
    """Wait until the ended jobs but those of `before` are told of, or `NOTICE_S` are over."""
    deadline = time.monotonic() + NOTICE_S
    while any(_is_untold(job) for job in client.jobs() if job["id"] not in before):
        if time.monotonic() > deadline:
            _say("The URL of --notify was not reached yet; the next service of this data directory tries again.")
            return
        time.sleep(POLL_S)


def _is_untold(job: JobInfo) -> bool:
    return job["finished_at"] is not None and job.get("notified") == "pending"


def _goes_on(listing_id: str | None) -> str:
    """What the same command does after Ctrl-C, which came while a job listed files or later."""
    if listing_id is not None:
        return "Interrupted while files were listed: the same command lists them again."
    return "Interrupted. What is embedded is kept: the same command goes on from there."


def _say(text: str) -> None:
    console().print(text, markup=False, soft_wrap=True)
