"""Jobs: durable rows, claims fenced by an attempt number, progress, cancellation.

A job is `running` from the moment its row is on disk until it is `complete`, `error` or `cancelled`.
Leases exist only in the writer's memory, on the monotonic clock; correctness depends on the attempt number alone.
"""

import json
import time
import zlib
from collections.abc import Callable
from datetime import UTC
from typing import TYPE_CHECKING

import pyarrow as pa

from serve_app.errors import NoEmbeddings, NothingRunning
from serve_app.records import Claim, Dataset, Job, JobKind, ModelCard, Skip, SourceFile
from serve_app.store import job_rows, sets
from serve_app.store.datasets import require_dataset
from serve_app.store.job_rows import COLUMNS, JobRow
from serve_app.store.maps import completed
from serve_app.store.methods import page_end, page_start, require_limit, write
from serve_app.store.retired import wipe
from serve_app.store.running_jobs import Leases, Pace
from serve_app.store.schema import create_vector_tables, dimensions
from serve_app.store.staging import pending_between, require_room_for

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database


_ABOUT_VECTORS: frozenset[JobKind] = frozenset({"reduce", "graph"})
"""The kinds of jobs that read a set of vectors; the others make one."""


class Jobs:
    """SQL over `jobs` and `job_skips`."""

    def __init__(self, database: "Database", pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._pace = pace
        self.leases = Leases(clock)

    @write
    def create(
        self,
        dataset_id: str,
        kind: JobKind,
        *,
        model_name: str | None = None,
        force: bool = False,
        params: dict[str, object] | None = None,
        defaults: dict[str, object] | None = None,
        notify_url: str | None = None,
    ) -> Job:
        """Insert a running job; it is on disk when this returns. A dataset has at most one running job of any kind.

        A job about vectors is about the set of `model_name`, or about the set made last if none is named.
        `defaults` are the parameters of a map; what `params` leaves out is as in the set's last map, or as in them.
        `notify_url` is told when the job ends (`Notifications`).

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job of the dataset is running; the message is the job's id.
            NoEmbeddings: the kind is `reduce` or `graph`, and the dataset has no vectors, or none of the model named.
        """
        with self._database.transaction() as session:
            dataset = require_dataset(session, dataset_id)
            job_rows.require_idle(session, dataset_id)
            is_about_vectors = kind in _ABOUT_VECTORS
            vectors = sets.require(session, dataset_id, model_name) if is_about_vectors else None
            if vectors is not None and not vectors.vector_count:
                raise NoEmbeddings("No embeddings found. Generate embeddings first.")
            row = job_rows.insert(
                session,
                dataset_id,
                kind,
                total=vectors.vector_count if vectors else dataset.sample_count,
                model_name=vectors.model_name if vectors else model_name,
                force=force,
                params=json.dumps(completed(session, vectors, params or {}, defaults or {})),
                vectors_job_id=vectors.job_id if vectors else None,
                scan_no=session.value("SELECT scan_no FROM datasets WHERE id = ?", dataset_id),
                notify_url=notify_url,
            )
        return job_rows.public(row, self._pace)

    @write
    def cancel(self, dataset_id: str) -> Job:
        """End the dataset's running job at once; its staged rows are retired, and the dataset keeps its vectors.

        The job may be the registration that is making the dataset.

        Raises:
            DatasetNotFound: no such dataset.
            NothingRunning: no job of the dataset is running.
        """
        with self._database.transaction() as session:
            row = job_rows.running_job(session, dataset_id)
            if row is None:
                dataset = require_dataset(session, dataset_id)
                raise NothingRunning(f"no job of dataset '{dataset.name}' is running")
            row = job_rows.cancel(session, row)
        return self._ended(row)

    @write
    def cancel_one(self, job_id: str) -> Job:
        """End this job at once, as `cancel` does.

        Raises:
            JobNotFound: no such job.
            NothingRunning: the job is over.
        """
        with self._database.transaction() as session:
            row = job_rows.load(session, job_id)
            if row.status != "running":
                raise NothingRunning(f"job '{job_id}' is over: {row.status}")
            row = job_rows.cancel(session, row)
        return self._ended(row)

    @write
    def claim(self, runner_id: str, *, holding: list[str], lease_s: float) -> Claim | None:
        """Give the oldest free running job to a runner, with the next attempt number; None when no job is free.

        A job is free when it has no lease (nobody claimed it, or the writer was restarted), when its lease has run
        out, or when the lease is the caller's but the answer to its claim got lost. Jobs in `holding` are those
        that the caller knows it holds; they are not given out again.
        """
        with self._database.transaction() as session:
            rows = session.q(f"SELECT {COLUMNS} FROM jobs WHERE status = 'running' ORDER BY number")
            jobs = [JobRow(*values) for values in rows]
            self.leases.keep([job.id for job in jobs])
            free = (job for job in jobs if job.id not in holding and self.leases.is_free(job.id, runner_id))
            row = next(free, None)
            if row is None:
                return None
            row = job_rows.update(
                session,
                row,
                attempt=row.attempt + 1,
                last_block=0,
                phase="running",
                message="Resuming" if row.attempt else "Starting",
            )
            dataset = _to_be(row) if row.kind == "register" else require_dataset(session, row.dataset_id)
        self.leases.grant(row.id, runner_id, lease_s)
        self._pace.start(row.id, row.processed)
        job = job_rows.public(row, self._pace)
        return Claim(job=job, dataset=dataset, attempt=row.attempt, force=row.force, params=json.loads(row.params))

    @write
    def renew(self, job_id: str, attempt: int, *, lease_s: float) -> None:
        """Extend the lease. Raises `StaleAttempt` when the job is over or another attempt has claimed it."""
        with self._database.read() as session:
            job_rows.guard(session, job_id, attempt)
        self.leases.extend(job_id, lease_s)

    @write
    def release(self, job_id: str, attempt: int) -> None:
        """End the lease so that any runner can claim the job at once; stale attempts are ignored."""
        with self._database.read() as session:
            current = session.row("SELECT 1 FROM jobs WHERE id = ? AND attempt = ?", job_id, attempt)
        if current is not None:
            self.leases.drop(job_id)

    @write
    def begin(self, job_id: str, attempt: int, card: ModelCard) -> Job:
        """Tie an embed job to a vector space before its first block.

        A job resumed in the same space keeps its staged vectors; a job resumed in another space starts from zero.

        Raises:
            StaleAttempt: the job is over, or another attempt has claimed it.
            InvalidRequest: vectors of the model's dimension cannot be stored.
            DiskFull: the disk has no room for the missing vectors.
        """
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            is_new_dimension = card.dimension not in dimensions(session)
            if is_new_dimension:
                create_vector_tables(session, card.dimension)
            changes: dict[str, object] = {
                "model_name": card.name,
                "space_key": card.space_key,
                "dimension": card.dimension,
            }
            if (row.space_key, row.dimension) != (card.space_key, card.dimension):
                for table in job_rows.staged_in(row):
                    wipe(session, table, job_id)  # the job's next rows go by the same name
                session.q("DELETE FROM job_skips WHERE job_id = ?", job_id)
                changes |= {"embedded": 0, "reused": 0, "skipped": 0}
            row = job_rows.update(session, row, **changes)
            require_room_for(session, self._database.path.parent, row.total - row.processed, card.dimension)
        if is_new_dimension:
            self._database.checkpoint()  # moves the new tables from the write-ahead log into the file
        self._pace.start(job_id, row.processed)
        return job_rows.public(row, self._pace)

    @write
    def announce(self, job_id: str, attempt: int, *, phase: str, message: str) -> Job:
        """Change the phase and message of a running job. Raises `StaleAttempt`."""
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            row = job_rows.update(session, row, phase=phase, message=message)
        return job_rows.public(row, self._pace)

    @write
    def advance(self, job_id: str, attempt: int, *, done: int, message: str) -> Job:
        """Say how many vectors a graph job has done with; a smaller number than before changes nothing.

        Raises:
            StaleAttempt: the job is over, or another attempt has claimed it.
        """
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            if done > row.embedded:
                row = job_rows.update(session, row, embedded=min(done, row.total), message=message)
        self._pace.note(job_id, row.processed)
        return job_rows.public(row, self._pace)

    @write
    def complete(self, job_id: str, attempt: int, message: str) -> Job:
        """End a graph job whose file is there. Raises `StaleAttempt`."""
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            row = job_rows.finish(session, row, "complete", message, embedded=row.total)
        return self._ended(row)

    @write
    def fail(self, job_id: str, attempt: int, message: str) -> Job:
        """End a job with `error`; its staged rows are retired. Raises `StaleAttempt`."""
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            row = job_rows.finish(session, row, "error", message)
        return self._ended(row)

    def pending(self, job_id: str, *, after: int, limit: int) -> list[SourceFile]:
        """Samples that the embed job has neither staged nor skipped, in order, after ordinal `after` (-1 at first).

        Raises:
            JobNotFound: no such job.
            InvalidRequest: the limit is not positive.
        """
        require_limit(limit)
        with self._database.read() as session:
            row = job_rows.load(session, job_id)
            found: list[SourceFile] = []
            # Only a window of samples is compared with the settled ones: a million samples, page by page, take a
            # tenth of the time that comparing all takes. Windows grow because a resumed job's head is settled.
            window = limit
            while len(found) < limit and after < row.total:
                found += pending_between(session, row, after, after + window)
                after += window
                window *= 2
        return found[:limit]

    def get(self, job_id: str) -> Job:
        """One job. Raises `JobNotFound`."""
        with self._database.read() as session:
            return job_rows.public(job_rows.load(session, job_id), self._pace)

    def all(self, *, limit: int) -> list[Job]:
        """At most `limit` jobs, newest first."""
        with self._database.read() as session:
            rows = session.q(f"SELECT {COLUMNS} FROM jobs ORDER BY number DESC LIMIT ?", require_limit(limit))
        return [job_rows.public(JobRow(*row), self._pace) for row in rows]

    def latest(self, keys: list[tuple[str, JobKind]]) -> list[Job | None]:
        """The newest job of each (dataset id, kind), or None; one query serves all progress streams.

        An import counts as `embed`, because both kinds make a set of vectors.
        """
        wanted = pa.table(
            {
                "dataset_id": pa.array([dataset_id for dataset_id, _ in keys], pa.string()),
                "stream": pa.array([_stream(kind) for _, kind in keys], pa.string()),
            }
        )
        with self._database.read() as session:
            session.bind("wanted", wanted)
            rows = session.q(
                f"SELECT {COLUMNS} FROM (SELECT *, if(kind = 'import', 'embed', kind) AS stream FROM jobs) "
                "SEMI JOIN wanted USING (dataset_id, stream) "
                "QUALIFY row_number() OVER (PARTITION BY dataset_id, stream ORDER BY number DESC) = 1"
            )
        newest = {(row.dataset_id, _stream(row.kind)): row for row in (JobRow(*values) for values in rows)}
        found = [newest.get((dataset_id, _stream(kind))) for dataset_id, kind in keys]
        return [None if row is None else job_rows.public(row, self._pace) for row in found]

    def skipped(self, dataset_id: str, *, limit: int, cursor: str | None) -> tuple[list[Skip], str | None]:
        """A page of the last embed or import job's skips, and the cursor of the next page (None at the end).

        Raises:
            Conflict: the page before listed the skips of an earlier job, or of this one before it began anew.
            DatasetNotFound: no such dataset.
            InvalidRequest: the cursor is malformed, or the limit is not positive.
        """
        require_limit(limit)
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            [(job_id, version)] = session.q(
                # A job that begins anew in another space has other skips.
                "SELECT max_by(id, number), max_by(concat_ws(' ', id, space_key), number) FROM jobs "
                "WHERE dataset_id = ? AND kind IN ('embed', 'import')",
                dataset_id,
            )
            version = zlib.crc32((version or "").encode())
            after = page_start(cursor, version, changed="A newer job has begun meanwhile; list the skips anew.")
            rows = session.q(
                "SELECT position, sample_id, file_name, reason, detail FROM job_skips "
                "WHERE position > ? AND job_id = ? ORDER BY position LIMIT ?",
                *(after, job_id, limit + 1),
            )
        page = [Skip(*row[1:]) for row in rows[:limit]]
        return page, page_end(rows[limit - 1][0], version) if len(rows) > limit else None

    def _ended(self, row: JobRow) -> Job:
        self.leases.drop(row.id)
        self._pace.stop(row.id)
        return job_rows.public(row, self._pace)


def _to_be(row: JobRow) -> Dataset:
    """The dataset that a registration is to make."""
    params = json.loads(row.params)
    created_at = row.created_at.replace(tzinfo=UTC)
    return Dataset(row.dataset_id, params["name"], params["root"], "folder", params["annotations"], 0, created_at)


def _stream(kind: JobKind) -> str:
    return "embed" if kind == "import" else kind
