"""What operators need from the database: whether it works, its figures, and backups."""

import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from serve_app.errors import Conflict, StoreUnavailable
from serve_app.records import Backup, JobStatus, StoreFigures
from serve_app.store.methods import write
from serve_app.store.schema import ROW_GROUP_ROWS
from serve_app.store.session import quoted

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

PARTIAL = ".partial"


class Health:
    """The health and the figures of the store."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    @write
    def check(self) -> list[str]:
        """Read from the database and write to it once; return one sentence for each suspected loss of data.

        Raises:
            StoreUnavailable: the database cannot be read or written; the message says why.
        """
        return self._database.check()

    def figures(self) -> StoreFigures:
        """The figures of the database for the dashboard. Raises `StoreUnavailable`."""
        with self._database.read() as session:
            jobs: dict[JobStatus, int] = dict.fromkeys(get_args(JobStatus), 0)
            jobs |= dict(session.q("SELECT status, count(*) FROM jobs GROUP BY status"))
            epoch = int(session.value("SELECT writer_epoch FROM meta"))
        return StoreFigures(writer_epoch=epoch, jobs=jobs, file_bytes=self._database.size_bytes())


class Backups:
    """Snapshots in `backups` beside the database."""

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._one_at_a_time = threading.Lock()

    def create(self) -> Backup:
        """Copy everything committed so far; reads and writes continue meanwhile.

        The copy is renamed to its final name when it is complete. A plain copy of the live file is no substitute,
        because the newest commits are only in its write-ahead log.

        Raises:
            Conflict: another backup is being written.
            StoreUnavailable: the database cannot be read, or the disk has no room.
        """
        if not self._one_at_a_time.acquire(blocking=False):
            raise Conflict("A backup is being written; wait for its end.")
        try:
            return self._create(self._database.backups, time.perf_counter())
        except OSError as error:
            raise StoreUnavailable(f"The backup could not be written: {error.strerror}.") from error
        finally:
            self._one_at_a_time.release()

    def _create(self, folder: Path, began: float) -> Backup:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{PARTIAL}*"):
            leftover.unlink()
        if shutil.disk_usage(folder).free < self._database.size_bytes():
            raise StoreUnavailable("The disk has no room for a copy of the database.")
        final = folder / f"{self._database.path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.duckdb"
        partial = final.with_name(final.name + PARTIAL)
        with self._database.autocommit() as session:
            name = session.value("SELECT current_database()")
            session.q(f"ATTACH {quoted(str(partial))} AS backup (ROW_GROUP_SIZE {ROW_GROUP_ROWS})")
            try:
                partial.chmod(0o600)
                session.q(f'COPY FROM DATABASE "{name}" TO backup')  # this is one transaction on one snapshot
                # Without FORCE, DuckDB 2.0 refuses while another session writes, even to the other database.
                session.q("FORCE CHECKPOINT backup")
            finally:
                session.q("DETACH backup")
        partial.rename(final)
        return Backup(str(final), final.stat().st_size, time.perf_counter() - began)
