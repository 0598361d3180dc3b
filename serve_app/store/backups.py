"""Copies of the database, written while it is in use."""

import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.errors import Conflict, StoreUnavailable
from serve_app.records import Backup
from serve_app.store.session import quoted

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

PARTIAL = ".partial"


class Backups:
    """Snapshots in `backups` beside the database."""

    def __init__(self, database: "Database") -> None:
        self._database = database
        self._one_at_a_time = threading.Lock()

    def create(self) -> Backup:
        """Copy everything that is committed now; reads and writes go on meanwhile.

        The copy is written under another name and gets its own when it is whole. Never copy a live file instead:
        what was committed last lies in its write-ahead log.

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
            session.q(f"ATTACH {quoted(str(partial))} AS backup")
            try:
                partial.chmod(0o600)
                session.q(f'COPY FROM DATABASE "{name}" TO backup')  # one transaction, on one snapshot
                # Without FORCE, DuckDB 2.0 refuses while another session writes, though it writes to the database.
                session.q("FORCE CHECKPOINT backup")
            finally:
                session.q("DETACH backup")
        partial.rename(final)
        return Backup(str(final), final.stat().st_size, time.perf_counter() - began)
