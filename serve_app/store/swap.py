"""How a job takes effect: its staged vectors replace the stored ones, or its points are written to the vectors."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import Conflict, InvalidRequest
from serve_app.store import column_rows, job_rows, readout
from serve_app.store.job_rows import JobRow
from serve_app.store.schema import dimensions, embeddings_table
from serve_app.store.session import Session
from serve_app.store.skip_reasons import VERDICTS, objections
from serve_app.store.staging import Space, unsettled_condition

POINTS_PAGE_ROWS = 50_000


def commit(session: Session, row: JobRow, space: Space) -> JobRow:
    """Replace the dataset's vectors with the job's staged ones, or keep them and end the job with an error.

    Raises:
        Conflict: some samples are still pending.
    """
    if row.kind == "embed":
        _require_settled(session, row, space)
    reason, message = _objection(session, row, space)
    if reason is not None:
        return job_rows.finish(session, row, "error", message, reason=reason)
    for dimension in dimensions(session):
        session.q(f"DELETE FROM {embeddings_table(dimension)} WHERE dataset_id = ?", row.dataset_id)
    session.q(
        f"INSERT INTO {space.embeddings} SELECT sample_id, ?, ?, vector, p.x, p.y, job_id, content_hash, size_bytes, "
        f"mtime_ns FROM {space.stage} LEFT JOIN import_points p USING (job_id, sample_id) WHERE job_id = ?",
        *(row.dataset_id, row.model_name, row.id),
    )
    session.q(
        "UPDATE datasets SET vectors_job_id = ?, vector_count = ?, placed_count = "
        "(SELECT count(*) FROM import_points WHERE job_id = ?) WHERE id = ?",
        *(row.id, row.embedded + row.reused, row.id, row.dataset_id),
    )
    column_rows.take_headers(session, row.dataset_id, row.id)
    return job_rows.finish(session, row, "complete", _summary(row))


def put_points(session: Session, row: JobRow, vectors_job_id: str, points: NDArray[np.float64]) -> JobRow:
    """Write (N, 2) points, in sample order, to the vectors of `vectors_job_id`, and end the job.

    Raises:
        InvalidRequest: `points` is not (N, 2) or not finite.
    """
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise InvalidRequest(f"coordinates are {points.shape} and must be (N, 2) finite numbers")
    current = readout.current(session, row.dataset_id)
    if current is None or current.job_id != vectors_job_id:
        message = "The vectors were replaced while the map was made; reduce again"
        return job_rows.finish(session, row, "error", message, reason="vectors_replaced")
    if current.vector_count != len(points):
        raise InvalidRequest(f"{len(points):,} coordinates were given for {current.vector_count:,} vectors")
    session.q(f"UPDATE {current.table} SET x = NULL, y = NULL WHERE dataset_id = ? AND x IS NOT NULL", row.dataset_id)
    _place(session, current, points)
    session.q("UPDATE datasets SET placed_count = ? WHERE id = ?", len(points), row.dataset_id)
    message = f"Placed {_images(len(points))} on the map"
    return job_rows.finish(session, row, "complete", message, embedded=len(points), total=len(points))


def _place(session: Session, current: readout.Current, points: NDArray[np.float64]) -> None:
    """Write (N, 2) points, in sample order, page by page."""
    done = 0
    for after in range(-1, current.sample_count - 1, POINTS_PAGE_ROWS):
        page = readout.places(session, current, after, POINTS_PAGE_ROWS)
        part = points[done : done + page.num_rows]
        done += page.num_rows
        axes = {axis: np.ascontiguousarray(part[:, column], np.float64) for column, axis in enumerate("xy")}
        session.bind("places", pa.table({"place": page.column("place"), **axes}))
        session.q(f"UPDATE {current.table} e SET x = p.x, y = p.y FROM places p WHERE e.rowid = p.place")


def _require_settled(session: Session, row: JobRow, space: Space) -> None:
    pending = session.value(
        f"SELECT count(*) FROM samples s WHERE s.dataset_id = ? AND {unsettled_condition(space.dimension)}",
        *(space.dataset_id, space.job_id, space.job_id),
    )
    if pending:
        raise Conflict(f"{pending:,} of {row.total:,} samples are still pending")


def _objection(session: Session, row: JobRow, space: Space) -> tuple[str | None, str]:
    """The error code and message if the staged vectors must not replace the stored ones, and (None, "") if they may."""
    staged, distinct, unusable = session.q(
        "SELECT count(*), count(DISTINCT sample_id), count(*) FILTER (NOT isfinite(p) OR p = 0) FROM "
        f"(SELECT sample_id, array_inner_product(vector, vector) AS p FROM {space.stage} WHERE job_id = ?)",
        row.id,
    )[0]
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
    if staged != distinct or unusable or staged != row.embedded + row.reused:
        return "inconsistent", "The embedded vectors are inconsistent; generate again. Earlier embeddings are kept"
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
