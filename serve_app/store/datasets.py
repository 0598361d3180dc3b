"""Datasets and their samples: registration, listing, rescans."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING

import pyarrow as pa

from serve_app.errors import DatasetNotFound, NameTaken, SampleNotFound, Unavailable
from serve_app.records import Dataset, DatasetFormat, PartsVectors, Sample, ScanChange, SourceFile
from serve_app.store import filtering, scans, sets
from serve_app.store.column_rows import GivenColumns
from serve_app.store.imports import insert_parts
from serve_app.store.job_rows import require_idle
from serve_app.store.methods import cached, page_end, page_start, require_limit, write
from serve_app.store.retired import retire
from serve_app.store.scans import LISTED, Listed
from serve_app.store.session import Session

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

_COLUMNS = "id, name, root, format, annotations, sample_count, notices, created_at"


class Datasets:
    """SQL over `datasets`, `samples` and the scan stage.

    A scan is written page by page under a scan id and takes effect in one transaction, so a client or service
    that dies during a scan leaves no half-listed dataset.
    """

    def __init__(self, database: "Database") -> None:
        self._database = database

    @write
    def begin_scan(self) -> str:
        """Open a scan and return its id; the first write of the next writer drops scans that nobody finished."""
        scan_id = uuid.uuid4().hex
        with self._database.transaction() as session:
            session.q("INSERT INTO scans VALUES (?)", scan_id)
        return scan_id

    @write
    def put_scan(self, scan_id: str, page: int, files: list[SourceFile]) -> None:
        """Add a page of listed files; a page that is sent twice is stored once.

        Raises:
            Unavailable: the scan is gone because the writer was restarted; begin again.
        """
        with self._database.transaction() as session:
            _require_scan(session, scan_id)
            if session.row("SELECT 1 FROM scan_files WHERE scan_id = ? AND page = ? LIMIT 1", scan_id, page):
                return
            scans.add(session, scan_id, page, scans.table_of(files))

    @write
    def drop_scan(self, scan_id: str) -> None:
        """Delete a scan; unknown ids are ignored."""
        with self._database.transaction() as session:
            _forget_scan(session, scan_id)

    @write
    def register(
        self,
        scan_id: str,
        *,
        name: str,
        root: str,
        format: DatasetFormat,
        annotations: str | None,
        columns: GivenColumns | None = None,
        notices: Sequence[str] = (),
        vectors: PartsVectors | None = None,
    ) -> Dataset:
        """Turn a scan into a new dataset, with the columns that its source has, and begin to import its vectors.

        Raises:
            NameTaken: a dataset has this name; the message is its id.
            Unavailable: the scan is gone because the writer was restarted; begin again.
        """
        dataset_id = uuid.uuid4().hex
        with self._database.transaction() as session:
            taken = session.row("SELECT id FROM datasets WHERE name = ?", name)
            if taken is not None:
                raise NameTaken(taken[0])
            _require_scan(session, scan_id)
            found = Listed(root, format, annotations, columns, tuple(notices))
            scans.register(session, scan_id, dataset_id, name, found)
            _forget_scan(session, scan_id)
            if vectors is not None:
                insert_parts(session, dataset_id, vectors)
            return require_dataset(session, dataset_id)

    @write
    def rescan(
        self,
        scan_id: str,
        dataset_id: str,
        columns: GivenColumns | None = None,
        notices: Sequence[str] = (),
        vectors: PartsVectors | None = None,
    ) -> ScanChange:
        """Replace a dataset's samples, notices, and the columns of its source, by a scan; samples keep their id.

        Vectors stay until the next embed job. The vectors of removed samples are hidden, and appear again when a
        later scan finds the samples again.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job is running; the message is its id.
            Unavailable: the scan is gone because the writer was restarted; begin again.
        """
        with self._database.transaction() as session:
            _require_idle(session, dataset_id)
            _require_scan(session, scan_id)
            change = scans.rescan(session, scan_id, dataset_id, columns, notices)
            _forget_scan(session, scan_id)
            if vectors is not None:
                insert_parts(session, dataset_id, vectors)
        return change

    @write
    def delete(self, dataset_id: str) -> None:
        """Delete a dataset with its samples, jobs and vectors.

        Raises:
            DatasetNotFound: no such dataset.
            JobRunning: a job is running; the message is its id.
        """
        with self._database.transaction() as session:
            _require_idle(session, dataset_id)
            sets.retire_of(session, dataset_id)
            jobs = [job_id for (job_id,) in session.q("SELECT id FROM jobs WHERE dataset_id = ?", dataset_id)]
            retire(session, "job_skips", *jobs)
            retire(session, "samples", dataset_id)
            session.q("DELETE FROM jobs WHERE dataset_id = ?", dataset_id)
            filtering.forget(session, dataset_id)
            session.q("DELETE FROM datasets WHERE id = ?", dataset_id)

    def all(self) -> list[Dataset]:
        """Every dataset, oldest first."""
        with self._database.read() as session:
            return [_dataset(*row) for row in session.q(f"SELECT {_COLUMNS} FROM datasets ORDER BY created_at, id")]

    @cached
    def get(self, dataset_id: str) -> Dataset:
        """One dataset. Raises `DatasetNotFound`."""
        with self._database.read() as session:
            return require_dataset(session, dataset_id)

    def by_name(self, name: str) -> Dataset | None:
        """The dataset of this name, or None."""
        with self._database.read() as session:
            row = session.row(f"SELECT {_COLUMNS} FROM datasets WHERE name = ?", name)
        return None if row is None else _dataset(*row)

    def samples(
        self,
        dataset_id: str,
        *,
        limit: int,
        cursor: str | None,
        where: str | None = None,
        model: str | None = None,
    ) -> tuple[list[Sample], str | None]:
        """A page of samples in listing order, and the cursor of the next page (None at the end).

        Raises:
            Conflict: a rescan has replaced the listing since the page before, or a new map the filter's regions.
            DatasetNotFound: no such dataset.
            InvalidFilter: `where` is no filter over the dataset's columns.
            InvalidRequest: the cursor is malformed, or the limit is not positive.
        """
        require_limit(limit)
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            scan_no = session.value("SELECT scan_no FROM datasets WHERE id = ?", dataset_id)
            of_map = filtering.map_of(session, dataset_id, where, model)
            happened = "rescanned or its map made anew" if of_map else "rescanned"
            changed = f"The dataset was {happened} meanwhile; list its samples anew."
            after = page_start(cursor, scan_no, changed=changed, of_map=of_map)
            only = filtering.choose(session, dataset_id, where, model=model)
            rows = session.q(
                "SELECT ordinal, sample_id, file_name, label FROM samples s WHERE dataset_id = ? AND ordinal > ? "
                f"{only} ORDER BY ordinal LIMIT ?",
                *(dataset_id, after, limit + 1),
            )
        page = [Sample(*row[1:]) for row in rows[:limit]]
        return page, page_end(rows[limit - 1][0], scan_no, of_map) if len(rows) > limit else None

    def sample(self, dataset_id: str, sample_id: str) -> tuple[Dataset, SourceFile]:
        """The dataset, and one of its samples as listed. Raises `DatasetNotFound`, `SampleNotFound`."""
        with self._database.read() as session:
            dataset = require_dataset(session, dataset_id)
            row = session.row(
                f"SELECT {LISTED} FROM samples WHERE dataset_id = ? AND sample_id = ?",
                *(dataset_id, sample_id),
            )
        if row is None:
            raise SampleNotFound(f"dataset '{dataset.name}' has no sample '{sample_id}'")
        return dataset, SourceFile(*row)

    def some(self, dataset_id: str, sample_ids: list[str]) -> tuple[Dataset, list[SourceFile]]:
        """The dataset, and those of the named samples that it has, in any order. Raises `DatasetNotFound`."""
        with self._database.read() as session:
            dataset = require_dataset(session, dataset_id)
            session.bind("named", pa.table({"sample_id": pa.array(sample_ids, pa.string())}))
            rows = session.q(
                f"SELECT {LISTED} FROM samples SEMI JOIN named USING (sample_id) WHERE dataset_id = ?", dataset_id
            )
        return dataset, [SourceFile(*row) for row in rows]


def require_dataset(session: Session, dataset_id: str) -> Dataset:
    """One dataset. Raises `DatasetNotFound`."""
    row = session.row(f"SELECT {_COLUMNS} FROM datasets WHERE id = ?", dataset_id)
    if row is None:
        raise DatasetNotFound(f"there is no dataset '{dataset_id}'")
    return _dataset(*row)


def _dataset(*row: object) -> Dataset:
    *columns, notices, created_at = row
    return Dataset(*columns, created_at.replace(tzinfo=UTC), tuple(json.loads(notices)))  # type: ignore


def _require_idle(session: Session, dataset_id: str) -> None:
    require_dataset(session, dataset_id)
    require_idle(session, dataset_id)


def _require_scan(session: Session, scan_id: str) -> None:
    if session.row("SELECT 1 FROM scans WHERE id = ?", scan_id) is None:
        raise Unavailable("The listing of the folder was interrupted; try again.")


def _forget_scan(session: Session, scan_id: str) -> None:
    session.q("DELETE FROM scan_files WHERE scan_id = ?", scan_id)
    session.q("DELETE FROM scans WHERE id = ?", scan_id)
