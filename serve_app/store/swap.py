"""How a job takes effect: its staged vectors become the dataset's set, or its points the map of one."""

import json

import numpy as np
import pyarrow as pa

from serve_app.errors import Conflict, InvalidRequest
from serve_app.records import Layout
from serve_app.store import job_rows, making, readout, sets
from serve_app.store.job_rows import JobRow
from serve_app.store.session import Session
from serve_app.store.sets import Current
from serve_app.store.skip_reasons import VERDICTS, objections

POINTS_PAGE_ROWS = 50_000


def commit(session: Session, row: JobRow) -> JobRow:
    """Make the job's staged vectors the dataset's set, or keep the old set and end the job with an error.

    No statement reads a vector: blocks refused what cannot be used, and what they staged is counted.

    Raises:
        Conflict: some samples are still pending.
    """
    if row.kind == "embed" and row.processed != row.total:
        raise Conflict(f"{row.total - row.processed:,} of {row.total:,} samples are still pending")
    reason, message = _objection(session, row)
    if reason is not None:
        return job_rows.finish(session, row, "error", message, reason=reason)
    placed = int(json.loads(row.params).get("placed", 0))
    count = row.embedded + row.reused
    sets.replace(session, row.dataset_id, model_name=row.model_name or "", job_id=row.id, count=count, placed=placed)
    return job_rows.finish(session, row, "complete", _summary(row))


def put_points(session: Session, row: JobRow, vectors_job_id: str, layout: Layout) -> JobRow:
    """Make N points, in sample order, the map of the set that `vectors_job_id` made, and end the job.

    Raises:
        InvalidRequest: the points are not (N, 2) or not finite, or there is another number of contents.
    """
    points = layout.points
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InvalidRequest(f"coordinates are {points.shape} and must be (N, 2) finite numbers")
    if layout.contents is not None and layout.contents.shape != points.shape[:1]:
        raise InvalidRequest(f"{len(points):,} coordinates came with {len(layout.contents):,} contents")
    found = sets.of_dataset(session, row.dataset_id)
    current = next((now for now in found if now.job_id == vectors_job_id), None)
    if current is None:
        message = "The vectors were replaced while the map was made; reduce again"
        return job_rows.finish(session, row, "error", message, reason="vectors_replaced")
    if current.vector_count != len(points):
        raise InvalidRequest(f"{len(points):,} coordinates were given for {current.vector_count:,} vectors")
    _place(session, row.id, current, layout)
    sets.place(session, current, row.id, len(points))
    return job_rows.finish(
        session,
        row,
        "complete",
        f"Placed {_images(len(points) - layout.stayed)} on the map{layout.note}",
        embedded=len(points) - layout.stayed,
        reused=layout.stayed,
        total=len(points),
        params=making.added(row.params, layout.made),
    )


def _place(session: Session, job_id: str, current: Current, layout: Layout) -> None:
    """Store N points, in sample order, under a job, page by page."""
    points, done = layout.points, 0
    contents = pa.nulls(len(points), pa.uint64()) if layout.contents is None else pa.array(layout.contents)
    for after in range(-1, current.sample_count - 1, POINTS_PAGE_ROWS):
        names = readout.places(session, current, after, POINTS_PAGE_ROWS).column("sample_id")
        part = points[done : done + len(names)]
        axes = {axis: np.ascontiguousarray(part[:, column], np.float64) for column, axis in enumerate("xy")}
        session.bind("places", pa.table({"sample_id": names, **axes, "content": contents[done : done + len(names)]}))
        session.q("INSERT INTO points SELECT ?, sample_id, x, y, content FROM places", job_id)
        done += len(names)


def _objection(session: Session, row: JobRow) -> tuple[str | None, str]:
    """The error code and message if the staged vectors must not become the set, and (None, "") if they may."""
    if row.kind == "embed":
        skips: dict[str, int] = dict(
            session.q("SELECT reason, count(*) FROM job_skips WHERE job_id = ? GROUP BY reason", row.id)
        )
        if failed := objections(skips, row.total):
            return _failure(failed, row.total)
    if row.kind == "import" and row.processed != row.total:
        return "transfer_broken", (
            f"transfer_broken: {row.processed:,} of {row.total:,} rows had arrived when the sender or the service "
            "stopped; send the file again. Earlier embeddings are kept"
        )
    staged = row.embedded + row.reused
    if not staged and row.kind == "import":
        return "no_valid_rows", (
            f"no_valid_rows: none of {row.total:,} rows could be imported; the skipped list says why. "
            "Earlier embeddings are kept"
        )
    if not staged:
        return "no_valid_images", (
            f"no_valid_images: none of {_images(row.total)} could be embedded; the skipped list says why. "
            "Earlier embeddings are kept"
        )
    return None, ""


def _summary(row: JobRow) -> str:
    if row.kind == "import":
        refused = f", {row.skipped:,} rows refused" if row.skipped else ""
        return f"Imported vectors of {_images(row.embedded)}{refused}"
    parts = [f"Embedded {_images(row.embedded)}"]
    parts += [f"{row.skipped:,} skipped"] if row.skipped else []
    parts += [f"{row.reused:,} reused"] if row.reused else []
    return ", ".join(parts)


def _failure(failed: dict[str, int], total: int) -> tuple[str, str]:
    """The error code and message of a job whose images failed for these reasons, the most frequent first."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in failed.items())
    if VERDICTS.get(next(iter(failed))) == "worker":
        return "worker_failed", (
            f"worker_failed: most of {_images(total)} got no vector ({counts}). Has a replica enough memory, and does "
            "its GPU work? Earlier embeddings are kept"
        )
    return "root_unavailable", (
        f"root_unavailable: most of {_images(total)} could not be read ({counts}). Is the folder still there and "
        "readable? If they were removed on purpose, rescan the dataset. Earlier embeddings are kept"
    )


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
