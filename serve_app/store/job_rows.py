"""Rows of the table `jobs`: functions that read, guard, change and end them inside a transaction."""

import uuid
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from serve_app.errors import Conflict, JobNotFound, JobRunning, StaleAttempt
from serve_app.records import Job, JobKind, JobStatus, NotifyState
from serve_app.store.retired import retire
from serve_app.store.running_jobs import Pace
from serve_app.store.schema import vectors_table
from serve_app.store.session import Session


@dataclass(frozen=True, slots=True)
class JobRow:
    """A row of `jobs`; the fields are its columns, in order.

    `number` rises with each job and orders jobs independently of the clock. `embedded`, `reused` and `skipped` count
    committed samples. `reason` is the error code that `Vectors.commit` or `put_points` gave. A reduction lays out
    the vectors of `vectors_job_id`. `scan_no` is the dataset's scan number when the job was created.
    """

    id: str
    number: int
    dataset_id: str
    kind: JobKind
    status: JobStatus
    phase: str
    reason: str | None
    attempt: int
    last_block: int
    seq: int
    total: int
    embedded: int
    reused: int
    skipped: int
    message: str
    model_name: str | None
    space_key: str | None
    dimension: int | None
    force: bool
    params: str
    vectors_job_id: str | None
    scan_no: int
    created_at: datetime
    finished_at: datetime | None
    notify_url: str | None
    notified: NotifyState | None
    notify_detail: str | None

    @property
    def processed(self) -> int:
        """The number of samples that committed work has settled."""
        return self.embedded + self.reused + self.skipped


LISTING: frozenset[JobKind] = frozenset({"register", "rescan"})
"""The kinds of jobs that count listed files; their `total` is 0 until they end."""
NAMES = tuple(field.name for field in fields(JobRow))
COLUMNS = ", ".join(NAMES)


def utc_now() -> datetime:
    """The present time as the tables store it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def insert(
    session: Session,
    dataset_id: str,
    kind: JobKind,
    *,
    total: int,
    model_name: str | None,
    force: bool,
    params: str,
    vectors_job_id: str | None,
    scan_no: int,
    notify_url: str | None = None,
) -> JobRow:
    """Add a running, unclaimed job under a new id and the next number."""
    row = JobRow(
        id=uuid.uuid4().hex,
        number=session.value("SELECT coalesce(max(number), 0) + 1 FROM jobs"),
        dataset_id=dataset_id,
        kind=kind,
        status="running",
        phase="queued",
        reason=None,
        attempt=0,
        last_block=0,
        seq=1,
        total=total,
        embedded=0,
        reused=0,
        skipped=0,
        message="Waiting to start",
        model_name=model_name,
        space_key=None,
        dimension=None,
        force=force,
        params=params,
        vectors_job_id=vectors_job_id,
        scan_no=scan_no,
        created_at=utc_now(),
        finished_at=None,
        notify_url=notify_url,
        notified=None if notify_url is None else "pending",
        notify_detail=None,
    )
    session.q(f"INSERT INTO jobs ({COLUMNS}) VALUES ({', '.join('?' * len(NAMES))})", *astuple(row))
    return row


def load(session: Session, job_id: str) -> JobRow:
    """One row. Raises `JobNotFound`."""
    row = session.row(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", job_id)
    if row is None:
        raise JobNotFound(f"there is no job '{job_id}'")
    return JobRow(*row)


def guard(session: Session, job_id: str, attempt: int) -> JobRow:
    """The row of a running job, given only to the holder of its newest attempt.

    Raises:
        StaleAttempt: the job is over or deleted, or another attempt has claimed it.
    """
    try:
        row = load(session, job_id)
    except JobNotFound:
        raise StaleAttempt(f"job {job_id} is gone") from None
    if row.status != "running":
        raise StaleAttempt(f"job {job_id} is over: {row.status}")
    if row.attempt != attempt:
        raise StaleAttempt(f"job {job_id} is at attempt {row.attempt}; attempt {attempt} is over")
    return row


def has_block(row: JobRow, block_no: int) -> bool:
    """Whether the attempt has already committed this block.

    Raises:
        Conflict: an earlier block is missing.
    """
    if block_no > row.last_block + 1:
        raise Conflict(f"block {row.last_block + 1} comes next, not block {block_no}")
    return block_no <= row.last_block


def running_job(session: Session, dataset_id: str) -> JobRow | None:
    """The dataset's running job, of any kind, or None."""
    row = session.row(f"SELECT {COLUMNS} FROM jobs WHERE dataset_id = ? AND status = 'running'", dataset_id)
    return None if row is None else JobRow(*row)


def require_idle(session: Session, dataset_id: str) -> None:
    """Raise `JobRunning` with the job's id if a job of the dataset is running, of any kind."""
    running = running_job(session, dataset_id)
    if running is not None:
        raise JobRunning(running.id)


def update(session: Session, row: JobRow, **changes: Any) -> JobRow:
    """Change columns of a row and increment `seq`."""
    changes["seq"] = row.seq + 1
    settings = ", ".join(f"{name} = ?" for name in changes)
    session.q(f"UPDATE jobs SET {settings} WHERE id = ?", *changes.values(), row.id)
    return replace(row, **changes)


def finish(session: Session, row: JobRow, status: JobStatus, message: str, **changes: Any) -> JobRow:
    """End a job; what it staged is retired unless it is complete."""
    if status != "complete":
        for table in staged_in(row):
            retire(session, table, row.id)
    return update(session, row, status=status, phase=status, message=message, finished_at=utc_now(), **changes)


def cancel(session: Session, row: JobRow) -> JobRow:
    """End a running job on request."""
    far = f"{row.processed:,} files" if row.kind in LISTING else f"{row.processed:,} of {row.total:,}"
    return finish(session, row, "cancelled", f"Cancelled at {far}")


def staged_in(row: JobRow) -> list[str]:
    """The tables that may have staged rows of a job."""
    if row.kind in LISTING:
        return ["scan_files"]
    tables = ["points"] if row.kind == "import" else []
    return tables if row.dimension is None else [vectors_table(row.dimension), *tables]


def public(row: JobRow, pace: Pace) -> Job:
    """The record of the job that clients see."""
    rate = pace.rate(row.id) if row.status == "running" else None
    return Job(
        id=row.id,
        dataset_id=row.dataset_id,
        kind=row.kind,
        status=row.status,
        phase=row.phase,
        processed=row.processed,
        skipped=row.skipped,
        reused=row.reused,
        total=row.total,
        message=row.message,
        model_name=row.model_name,
        attempt=row.attempt,
        seq=row.seq,
        rate=rate,
        eta_s=(row.total - row.processed) / rate if rate and row.kind not in LISTING else None,
        created_at=row.created_at.replace(tzinfo=UTC),
        finished_at=None if row.finished_at is None else row.finished_at.replace(tzinfo=UTC),
        notified=row.notified,
        notify_detail=row.notify_detail,
    )
