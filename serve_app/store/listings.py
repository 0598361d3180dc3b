"""Registrations and rescans as jobs: their pages lie under the job until one transaction takes them over.

The dataset of a registration has its id from the beginning, and no row before the job is complete, so nobody sees it
half listed. An attempt begins with an empty listing: folders change, and to list again costs little beside embedding.
"""

import json
import uuid
from typing import TYPE_CHECKING

import pyarrow as pa

from serve_app.errors import JobRunning, NameTaken
from serve_app.records import Job, JobKind, ScanChange
from serve_app.store import job_rows, scans
from serve_app.store.datasets import require_dataset
from serve_app.store.imports import insert_parts
from serve_app.store.job_rows import COLUMNS, JobRow
from serve_app.store.methods import write
from serve_app.store.retired import retire, wipe
from serve_app.store.running_jobs import Pace
from serve_app.store.scans import Listed
from serve_app.store.session import Session

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database


class Listings:
    """SQL over jobs of the kinds `register` and `rescan`, and the pages that they list."""

    def __init__(self, database: "Database", pace: Pace) -> None:
        self._database = database
        self._pace = pace

    @write
    def create(
        self, *, name: str, root: str, format: str, annotations: str | None, notify_url: str | None = None
    ) -> Job:
        """Insert a running registration; the job names the dataset that it will make.

        Args:
            name: the dataset's name.
            root: the real path or URL that will be listed.
            format: the wanted format, perhaps "auto".
            annotations: the annotation file, its URL, or None.
            notify_url: is told when the job ends.

        Raises:
            NameTaken: a dataset has this name; the message is its id.
            JobRunning: a registration under this name is running; the message is the job's id.
        """
        params = {"name": name, "root": root, "format": format, "annotations": annotations}
        with self._database.transaction() as session:
            _require_free(session, name)
            row = _insert(session, uuid.uuid4().hex, "register", params, notify_url)
        return job_rows.public(row, self._pace)

    @write
    def create_rescan(self, dataset_id: str, *, notify_url: str | None = None) -> Job:
        """Insert a running rescan of a dataset.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job of the dataset is running; the message is its id.
        """
        with self._database.transaction() as session:
            require_dataset(session, dataset_id)
            job_rows.require_idle(session, dataset_id)
            row = _insert(session, dataset_id, "rescan", {}, notify_url)
        return job_rows.public(row, self._pace)

    @write
    def begin(self, job_id: str, attempt: int) -> None:
        """Drop what an earlier attempt has listed. Raises `StaleAttempt`."""
        with self._database.transaction() as session:
            job_rows.guard(session, job_id, attempt)
            wipe(session, "scan_files", job_id)

    @write
    def put(self, job_id: str, attempt: int, page: int, files: pa.Table, *, n_listed: int) -> Job:
        """Add a page of listed files, as `scans.table_of` makes it; a page that is sent twice is stored once.

        Args:
            job_id: the job.
            attempt: its attempt.
            page: 1 for the first page of the attempt.
            files: the rows of the page.
            n_listed: the files of the attempt so far. A resumed job counts on from where the one before it was.

        Raises:
            StaleAttempt: the job is over, or another attempt has claimed it.
            Conflict: a page before this one is missing.
        """
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            if not job_rows.has_block(row, page):
                scans.add(session, job_id, page, files)
                message = f"Listed {n_listed:,} files"
                row = job_rows.update(
                    session, row, embedded=max(row.embedded, n_listed), last_block=page, message=message
                )
        self._pace.note(job_id, row.processed)
        return job_rows.public(row, self._pace)

    @write
    def commit(self, job_id: str, attempt: int, found: Listed) -> Job:
        """Turn the listing into the job's dataset, or put it in the place of its samples, and end the job.

        Raises:
            NameTaken: a dataset has got the name meanwhile; the message is its id.
            StaleAttempt: the job is over, or another attempt has claimed it.
        """
        with self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            if row.kind == "register":
                name = json.loads(row.params)["name"]
                _require_free(session, name, but=job_id)
                message = f"Registered {scans.register(session, job_id, row.dataset_id, name, found):,} images"
            else:
                change = scans.rescan(session, job_id, row.dataset_id, found.columns, found.notices)
                message = _summary(change)
            retire(session, "scan_files", job_id)
            row = job_rows.finish(session, row, "complete", message, total=row.embedded)
            if found.vectors is not None:
                insert_parts(session, row.dataset_id, found.vectors)
        self._pace.stop(job_id)
        return job_rows.public(row, self._pace)


def _summary(change: ScanChange) -> str:
    counts = {"added": change.added, "changed": change.changed, "removed": change.removed}
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing changed"


def _insert(
    session: Session, dataset_id: str, kind: JobKind, params: dict[str, str | None], notify_url: str | None
) -> JobRow:
    return job_rows.insert(
        session,
        dataset_id,
        kind,
        total=0,  # nobody knows it before the end
        model_name=None,
        force=False,
        params=json.dumps(params),
        vectors_job_id=None,
        scan_no=0,
        notify_url=notify_url,
    )


def _require_free(session: Session, name: str, *, but: str = "") -> None:
    """Make sure that no dataset has the name, and no registration but one is about to give it."""
    taken = session.row("SELECT id FROM datasets WHERE name = ?", name)
    if taken is not None:
        raise NameTaken(taken[0])
    rows = session.q(f"SELECT {COLUMNS} FROM jobs WHERE kind = 'register' AND status = 'running' AND id <> ?", but)
    for row in (JobRow(*values) for values in rows):
        if json.loads(row.params)["name"] == name:
            raise JobRunning(row.id)
