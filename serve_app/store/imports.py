"""Imports: vectors made elsewhere, staged under a job and made current like embedded ones.

The process that receives the file holds the job's lease while it stages rows. If it dies, the lease runs out, a
runner claims the job, and `Vectors.commit` finds rows missing.
"""

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from serve_app.errors import DatasetNotFound
from serve_app.records import ImportedRows, Job, PartsVectors, Skip
from serve_app.store import job_rows, sets, staging
from serve_app.store.job_rows import JobRow
from serve_app.store.job_samples import Borrowed, JobSamples, Match
from serve_app.store.methods import write
from serve_app.store.retired import wipe
from serve_app.store.running_jobs import Leases, Pace
from serve_app.store.schema import create_vector_tables, dimensions
from serve_app.store.session import Session
from serve_app.store.staging import Space, require_room_for

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database


class Imports:
    """SQL over the job and the staged rows of a running import."""

    def __init__(self, database: "Database", pace: Pace, leases: Leases, samples: JobSamples) -> None:
        self._database = database
        self._pace = pace
        self._leases = leases
        self._samples = samples

    @write
    def open(
        self,
        dataset_id: str,
        *,
        model_name: str,
        space_key: str,
        dimension: int,
        total: int,
        holder: str,
        lease_s: float,
        notify_url: str | None = None,
    ) -> Job:
        """Insert a running import of `total` rows, held by `holder`; its attempt is 1.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job of the dataset is running; the message is the job's id.
            InvalidRequest: vectors of this dimension cannot be stored.
            DiskFull: the disk has no room for the vectors.
        """
        with self._database.transaction() as session:
            if session.row("SELECT 1 FROM datasets WHERE id = ?", dataset_id) is None:
                raise DatasetNotFound(f"there is no dataset '{dataset_id}'")
            require_room_for(session, self._database.path.parent, total, dimension)
            job_rows.require_idle(session, dataset_id)
            is_new_dimension = dimension not in dimensions(session)
            if is_new_dimension:
                create_vector_tables(session, dimension)
            scan_no = session.value("SELECT scan_no FROM datasets WHERE id = ?", dataset_id)
            row = job_rows.insert(
                session,
                dataset_id,
                "import",
                total=total,
                model_name=model_name,
                force=False,
                params="{}",
                vectors_job_id=None,
                scan_no=scan_no,
                notify_url=notify_url,
            )
            row = job_rows.update(
                session,
                row,
                attempt=1,
                phase="running",
                message="Receiving vectors",
                space_key=space_key,
                dimension=dimension,
            )
        if is_new_dimension:
            self._database.checkpoint()  # moves the new tables from the write-ahead log into the file
        self._leases.grant(row.id, holder, lease_s)
        self._pace.start(row.id, 0)
        return job_rows.public(row, self._pace)

    @write
    def begin(self, job_id: str, attempt: int, *, model_name: str, space_key: str, dimension: int, total: int) -> Job:
        """Tie an import of local parts to its space before its first block; what an attempt before it staged goes.

        Raises:
            StaleAttempt: the job was cancelled, or another attempt has claimed it.
            InvalidRequest: vectors of this dimension cannot be stored.
            DiskFull: the disk has no room for the vectors.
        """
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            for table in job_rows.staged_in(row):
                wipe(session, table, job_id)
            session.q("DELETE FROM job_skips WHERE job_id = ?", job_id)
            require_room_for(session, self._database.path.parent, total, dimension)
            is_new_dimension = dimension not in dimensions(session)
            if is_new_dimension:
                create_vector_tables(session, dimension)
            row = job_rows.update(
                session,
                row,
                model_name=model_name,
                space_key=space_key,
                dimension=dimension,
                total=total,
                embedded=0,
                skipped=0,
                params=json.dumps(json.loads(row.params) | {"placed": 0}),
                message="Reading vectors",
            )
        if is_new_dimension:
            self._database.checkpoint()  # moves the new tables from the write-ahead log into the file
        self._pace.start(row.id, 0)
        return job_rows.public(row, self._pace)

    @write
    def put(self, job_id: str, attempt: int, block_no: int, rows: ImportedRows, *, lease_s: float) -> Job:
        """Stage and count a block of rows in one transaction, and extend the lease; the call is safe to repeat.

        A row is skipped when it names no sample of the dataset (`unknown_sample`), several samples (`ambiguous`) or
        the sample of an earlier row (`duplicate`). The skips that `rows` brings along are recorded as well.

        Raises:
            StaleAttempt: the job was cancelled, or its lease ran out and it was claimed.
            Conflict: a block before this one is missing.
        """
        with self._samples.of(job_id) as samples, self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            if not job_rows.has_block(row, block_no):
                row = _put(session, row, rows, block_no, samples)
                samples.keep(row)
        self._leases.extend(job_id, lease_s)
        self._pace.note(job_id, row.processed)
        return job_rows.public(row, self._pace)


def insert_parts(session: Session, dataset_id: str, vectors: PartsVectors) -> None:
    """Add a job that imports local parts, unless the dataset's set of their model came from the very same."""
    current = sets.current(session, dataset_id, vectors.model_name)
    if (
        current is not None
        and json.loads(job_rows.load(session, current.job_id).params).get("digest") == vectors.digest
    ):
        return
    job_rows.insert(
        session,
        dataset_id,
        "import",
        total=vectors.total,
        model_name=vectors.model_name,
        force=False,
        params=json.dumps({"parts": vectors.folder, "digest": vectors.digest}),
        vectors_job_id=None,
        scan_no=session.value("SELECT scan_no FROM datasets WHERE id = ?", dataset_id),
    )


def _put(session: Session, row: JobRow, rows: ImportedRows, block_no: int, samples: Borrowed) -> JobRow:
    space = Space.of(row)
    assert space is not None
    index = samples.index(session, row, rows.key_column)
    found: dict[str, list[Match]] = {}
    for match in index.find(session, [*rows.keys, *(skip.sample_id for skip in rows.skips)]):
        found.setdefault(match.key, []).append(match)
    keep: list[int] = []
    skips = list(rows.skips)
    chosen: dict[str, Match] = {}
    for position, key in enumerate(rows.keys):
        matches = found.get(key, [])
        if len(matches) != 1:
            skips.append(_unmatched(key, rows, len(matches)))
        elif matches[0].is_settled or matches[0].sample_id in chosen:
            skips.append(Skip(key, key, "duplicate", "an earlier row of the file gave this sample's vector"))
        else:
            chosen[matches[0].sample_id] = matches[0]
            keep.append(position)
    vectors = rows.vectors if len(keep) == len(rows.keys) else rows.vectors[keep]
    staging.stage_imported(session, space, list(chosen), vectors)
    index.settle(chosen.values())
    placed = _stage_points(session, row.id, list(chosen), rows.points[keep])
    skips = [Skip(*_names(found, skip.sample_id), skip.reason, skip.detail) for skip in skips]
    staging.put_skips(session, space, skips, first_position=row.skipped)
    processed = row.processed + len(keep) + len(skips)
    params = json.loads(row.params)
    return job_rows.update(
        session,
        row,
        embedded=row.embedded + len(keep),
        skipped=row.skipped + len(skips),
        last_block=block_no,
        params=json.dumps(params | {"placed": params.get("placed", 0) + placed}),
        message=f"Receiving {processed:,} of {row.total:,} vectors",
    )


def _stage_points(session: Session, job_id: str, sample_ids: list[str], points: np.ndarray[tuple[int, int]]) -> int:
    placed = np.isfinite(points).all(axis=1)
    if not placed.any():
        return 0
    table = {
        "sample_id": pa.array(np.asarray(sample_ids, object)[placed], pa.string()),
        "x": np.ascontiguousarray(points[placed, 0]),
        "y": np.ascontiguousarray(points[placed, 1]),
    }
    session.bind("places", pa.table(table))
    session.q("INSERT INTO points SELECT ?, sample_id, x, y, NULL FROM places", job_id)
    return int(placed.sum())


def _unmatched(key: str, rows: ImportedRows, n_matches: int) -> Skip:
    if n_matches:
        return Skip(key, key, "ambiguous", f"{n_matches} samples have this file: name them by sample_id")
    return Skip(key, key, "unknown_sample", f"no sample of the dataset has this {rows.key_column}")


def _names(found: dict[str, list[Match]], key: str) -> tuple[str, str]:
    """The sample id and file name of a skipped row, or the row's own key twice when no sample matches."""
    matches = found.get(key)
    return (matches[0].sample_id, matches[0].file_name) if matches else (key, key)
