"""One attempt at a reduce job: read the vectors, fit UMAP or place the new ones, write the points to those vectors."""

import asyncio
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serve_app.jobs.last_map import LastPoints, last_points
from serve_app.jobs.telling import telling
from serve_app.projection.fit_process import FitProcess
from serve_app.projection.reduction import Projection
from serve_app.records import Claim, Layout, MapMade
from serve_app.search.contents import numbers_of_contents
from serve_app.search.set_file import SetFile
from serve_app.search.set_files import SetFiles
from serve_app.services import Writer
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

PHASES = {"neighbours": "neighbours", "layout": "epoch", "refinement": "refinement", "placement": "placement"}
"""Readable words for the units that `epoch_report.OnProgress` counts."""


class Progress:
    """How far a fit is, noted by one thread and read by another."""

    def __init__(self) -> None:
        self.text = ""

    def note(self, phase: str, done: int, total: int) -> None:
        """Keep what `epoch_report.OnProgress` is told, in words."""
        self.text = f"{PHASES[phase]} {done:,} of {total:,}"


async def reduce_job(claim: Claim, writer: Writer, sets: SetFiles, process: FitProcess) -> None:
    """Run a claimed reduce job until it is `complete`.

    Points of the last map stay where they are, if its parameters are the same, it has most of the images, and nobody
    asked to `redraw`; then only the others are placed.

    Args:
        claim: the job; its `params` are the fields of `Projection`, and `redraw`.
        writer: the store.
        sets: the files of the vectors.
        process: runs the fit; cancelling this call ends it.

    Raises:
        WorkerCrashed: the fit's process died.
        Conflict: the vectors were replaced before the fit began.
        StaleAttempt: the job was cancelled, or another attempt claimed it; the points are dropped.
        NoEmbeddings: the dataset's vectors are gone.
    """
    job_id, attempt = claim.job.id, claim.attempt
    await writer.ask(Jobs.announce, job_id, attempt, phase="running", message="Reading vectors")
    found = await sets.current(claim.dataset.id, claim.job.model_name)
    projection = Projection.model_validate({k: v for k, v in claim.params.items() if k in Projection.model_fields})
    contents = await asyncio.to_thread(numbers_of_contents, found)
    last = await last_points(claim, writer, found, projection, contents)
    message = _beginning(found, last)
    await writer.ask(Jobs.announce, job_id, attempt, phase="fitting", message=message)
    progress = Progress()

    async def announce(text: str) -> None:
        await writer.ask(Jobs.announce, job_id, attempt, phase="fitting", message=f"{message}: {text}")

    async with telling(lambda: progress.text, announce):
        layout = await _laid_out(found, projection, last, process, progress)
    await writer.ask(Vectors.put_points, job_id, attempt, found.job_id, replace(layout, contents=contents))


def _beginning(found: SetFile, last: LastPoints) -> str:
    if last.kept is None:
        why = f" anew: {last.why}" if last.why else ""
        return f"Fitting UMAP to {len(found.matrix):,} vectors{why}"
    return f"Placing {_n_new(last.kept):,} new images on the map"


async def _laid_out(
    found: SetFile, projection: Projection, last: LastPoints, process: FitProcess, progress: Progress
) -> Layout:
    if last.kept is None or last.made is None:
        fitted = await process.fit(found.folder, projection, progress.note)
        around = f" around {fitted.landmarks:,} landmarks" if fitted.landmarks else ""
        note = f"{around}; drawn anew: {last.why}" if last.why else around
        return Layout(fitted.points, made=MapMade(len(fitted.points), landmarks=fitted.landmarks), note=note)
    points = await process.place(found.folder, projection, last.kept, progress.note)
    n_new = _n_new(last.kept)
    stayed = len(points) - n_new
    made = replace(last.made, placed=last.made.placed + n_new)
    return Layout(points, stayed=stayed, made=made, note=f"; {stayed:,} stayed where they were")


def _n_new(kept: NDArray[np.float64]) -> int:
    return int(np.isnan(kept[:, 0]).sum())
