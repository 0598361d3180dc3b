"""The staged rows of a running job: disk room for them, settled samples, known vectors, and new blocks.

A sample is settled when the job has staged its vector or skipped it.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from serve_app.errors import DiskFull, StoreUnavailable
from serve_app.records import IMPORTED, FileStamp, Skip, SourceFile, VectorArray
from serve_app.store import sets
from serve_app.store.job_rows import JobRow
from serve_app.store.schema import BASE_DIMENSION, vectors_table
from serve_app.store.session import Session

MAX_KNOWN_HASHES = 256
"""If more known contents than this share a size, none is compared: images of a fixed-size format share one size."""

# Limits of a vector's squared norm; within them the squared norm is neither zero nor infinite in float32.
MIN_SQUARED_NORM = 1e-30
MAX_SQUARED_NORM = 1e37

COPIES = 1.5
"""A set is on disk once, and in part a second time in the write-ahead log."""
ROW_BYTES = 128
"""The names and stamps of a row take this much, besides four bytes for each component of its vector."""


@dataclass(frozen=True, slots=True)
class Space:
    """The vector space of a job, and the table that holds its vectors."""

    job_id: str
    dataset_id: str
    model_name: str | None
    space_key: str
    dimension: int

    @property
    def table(self) -> str:
        """The table of vectors, staged and current."""
        return vectors_table(self.dimension)

    @classmethod
    def of(cls, row: JobRow) -> "Space | None":
        """The space of a job, or None before `Jobs.begin`."""
        if row.space_key is None or row.dimension is None:
            return None
        return cls(row.id, row.dataset_id, row.model_name, row.space_key, row.dimension)


def require_room_for(session: Session, folder: Path, rows: int, dimension: int) -> None:
    """Make sure that `rows` more vectors fit into the disk's free space and the file's free blocks together.

    Raises:
        DiskFull: the vectors do not fit.
        StoreUnavailable: they do not fit yet, because old rows are still being deleted.
    """
    needed = int(COPIES * rows * (4 * dimension + ROW_BYTES))
    within = session.value(
        "SELECT free_blocks * block_size FROM pragma_database_size() WHERE database_name = current_database()"
    )
    free = shutil.disk_usage(folder).free + int(within)
    if free < needed and session.row("SELECT 1 FROM retired LIMIT 1") is not None:
        raise StoreUnavailable("The room of vectors that were replaced is being freed; the call is to be repeated.")
    if free < needed:
        raise DiskFull(
            f"{rows:,} vectors need about {_megabytes(needed)} on the disk of the database while they are made, and "
            f"{_megabytes(free)} are free. Make room and start again. Earlier embeddings are kept"
        )


def usable(vectors: VectorArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """An (N,) mask of the (N, D) vectors whose components are finite and whose norm is neither zero nor too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (squares > MIN_SQUARED_NORM) & (squares < MAX_SQUARED_NORM)
    return found


def unstaged_condition(dimension: int) -> str:
    """An SQL condition that is true for samples `s` without a staged vector; its parameter is the job's id."""
    return f"NOT EXISTS (FROM {vectors_table(dimension)} t WHERE t.job_id = ? AND t.sample_id = s.sample_id)"


def unsettled_condition(dimension: int) -> str:
    """An SQL condition that is true for unsettled samples `s`; its two parameters are both the job's id."""
    skipped = "EXISTS (FROM job_skips k WHERE k.job_id = ? AND k.sample_id = s.sample_id)"
    return f"{unstaged_condition(dimension)} AND NOT {skipped}"


def pending_between(session: Session, row: JobRow, after: int, last: int) -> list[SourceFile]:
    """Unsettled samples whose ordinal is in (after, last]."""
    # Before `Jobs.begin` the job has staged nothing, so any table gives the right answer.
    rows = session.q(
        "SELECT sample_id, file_name, label, size_bytes, mtime_ns, place, ordinal FROM samples s "
        "WHERE dataset_id = ? AND ordinal > ? AND ordinal <= ? "
        f"AND {unsettled_condition(row.dimension or BASE_DIMENSION)} ORDER BY ordinal",
        *(row.dataset_id, after, last, row.id, row.id),
    )
    return [SourceFile(*values) for values in rows]


def stage_vectors(
    session: Session, space: Space, sample_ids: list[str], stamps: list[FileStamp], vectors: VectorArray
) -> int:
    """Stage (N, D) vectors with their stamps, and return N."""
    if not sample_ids:
        return 0
    session.bind("block", stamped(sample_ids, stamps).append_column("vector", _lists(vectors)))
    count = session.value(
        f"INSERT INTO {space.table} BY NAME SELECT ? AS job_id, * FROM block",
        space.job_id,
    )
    return int(count)


def stage_imported(session: Session, space: Space, sample_ids: list[str], vectors: VectorArray) -> None:
    """Stage (N, D) vectors that come from no file: the size -1 keeps a later job from reusing them for one."""
    if sample_ids:
        session.bind("block", pa.table({"sample_id": pa.array(sample_ids, pa.string()), "vector": _lists(vectors)}))
        session.q(
            f"INSERT INTO {space.table} BY NAME SELECT ? AS job_id, *, ? || sample_id AS content_hash, "
            "-1 AS size_bytes, -1 AS mtime_ns FROM block",
            *(space.job_id, IMPORTED),
        )


def stage_known(session: Session, space: Space, known: list[tuple[str, FileStamp]]) -> int:
    """Stage copies of the space's stored or staged vectors with these content hashes, and return their number."""
    if not known:
        return 0
    session.bind("known", stamped([sample_id for sample_id, _ in known], [stamp for _, stamp in known]))
    count = session.value(
        f"INSERT INTO {space.table} BY NAME SELECT ? AS job_id, k.*, v.vector "
        "FROM known k JOIN (SELECT content_hash, any_value(vector) AS vector FROM "
        f"({_vectors_of_space(space, 'vector', 'content_hash IN (SELECT content_hash FROM known)')}) "
        "GROUP BY content_hash) v USING (content_hash)",
        *(space.job_id, space.space_key),
    )
    return int(count)


def stage_unchanged(session: Session, space: Space, observed: list[SourceFile]) -> set[str]:
    """Stage stored vectors of the dataset and space whose file kept its size and mtime; return their sample ids."""
    parent = _parent(session, space)
    if parent is None:
        return set()
    session.bind("observed", _observed(observed))
    rows = session.q(
        f"INSERT INTO {space.table} BY NAME "
        "SELECT ? AS job_id, v.sample_id, v.vector, v.content_hash, v.size_bytes, v.mtime_ns "
        f"FROM {space.table} v JOIN observed o USING (sample_id, size_bytes, mtime_ns) "
        "WHERE v.job_id = ? AND o.size_bytes >= 0 RETURNING sample_id",
        *(space.job_id, parent),
    )
    return {sample_id for (sample_id,) in rows}


def to_read(session: Session, space: Space, observed: list[SourceFile]) -> list[SourceFile]:
    """The files in order of size, each with the content hashes that its own hash will be compared with."""
    if not observed:
        return []
    session.bind("observed", _observed(observed))
    same_size = _vectors_of_space(space, "size_bytes", "size_bytes IN (SELECT size_bytes FROM observed)")
    by_size: dict[int, list[str]] = dict(
        session.q(
            f"SELECT size_bytes, list(DISTINCT content_hash) FROM ({same_size}) WHERE size_bytes >= 0 "
            "GROUP BY size_bytes HAVING approx_count_distinct(content_hash) <= ?",
            *(space.space_key, MAX_KNOWN_HASHES),
        )
    )
    # A file with a new mtime most likely kept its content, so its own hash is included however many share its size.
    own: dict[str, str] = dict(
        session.q(
            f"SELECT v.sample_id, v.content_hash FROM {space.table} v JOIN observed o USING (sample_id, size_bytes) "
            "WHERE v.job_id = ? AND o.size_bytes >= 0",
            _parent(session, space),
        )
    )
    return [
        replace(
            file,
            known_hashes=frozenset(by_size.get(file.size_bytes, []))
            | ({own[file.sample_id]} if file.sample_id in own else set()),
        )
        for file in sorted(observed, key=lambda file: file.size_bytes)
    ]


def put_skips(session: Session, space: Space, skips: list[Skip], first_position: int) -> int:
    """Record skips, numbered from `first_position` on, and return their number."""
    if not skips:
        return 0
    session.bind(
        "skips",
        pa.table(
            {
                "position": pa.array(range(first_position, first_position + len(skips)), pa.int64()),
                "sample_id": pa.array([skip.sample_id for skip in skips], pa.string()),
                "file_name": pa.array([skip.file_name for skip in skips], pa.string()),
                "reason": pa.array([skip.reason for skip in skips], pa.string()),
                "detail": pa.array([skip.detail for skip in skips], pa.string()),
            }
        ),
    )
    session.q("INSERT INTO job_skips SELECT ?, position, sample_id, file_name, reason, detail FROM skips", space.job_id)
    return len(skips)


def stamped(sample_ids: list[str], stamps: list[FileStamp]) -> pa.Table:
    """A table of sample ids with the stamps of their files."""
    return pa.table(
        {
            "sample_id": pa.array(sample_ids, pa.string()),
            "content_hash": pa.array([stamp.content_hash for stamp in stamps], pa.string()),
            "size_bytes": pa.array([stamp.size_bytes for stamp in stamps], pa.int64()),
            "mtime_ns": pa.array([stamp.mtime_ns for stamp in stamps], pa.int64()),
        }
    )


def _lists(vectors: VectorArray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).reshape(-1)), vectors.shape[1])


def _observed(files: list[SourceFile]) -> pa.Table:
    return pa.table(
        {
            "sample_id": pa.array([file.sample_id for file in files], pa.string()),
            "size_bytes": pa.array([file.size_bytes for file in files], pa.int64()),
            "mtime_ns": pa.array([file.mtime_ns for file in files], pa.int64()),
        }
    )


def _parent(session: Session, space: Space) -> str | None:
    """The job of the dataset's set in this space, that of the same model if there are several, or None."""
    found = [now for now in sets.of_dataset(session, space.dataset_id) if _is_in(now, space)]
    found.sort(key=lambda now: now.model_name != space.model_name)
    return found[0].job_id if found else None


def _is_in(now: sets.Current, space: Space) -> bool:
    return (now.space_key, now.dimension) == (space.space_key, space.dimension)


def _vectors_of_space(space: Space, column: str, condition: str) -> str:
    """SQL for `content_hash` and one column of a space's current and staged vectors; it takes the space key once."""
    return (
        f"SELECT content_hash, {column} FROM {space.table} SEMI JOIN (FROM jobs WHERE space_key = ? AND "
        f"(status = 'running' OR id IN (SELECT job_id FROM sets))) j ON j.id = {space.table}.job_id WHERE {condition}"
    )


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
