"""The one DuckDB file: opening it, transactions on it, and what happens when it fails.

Everything here follows measured behaviour of DuckDB 2.0:

- each session has its own cursor, because a connection that threads share refuses calls;
- a fatal error ends the whole instance, reads included, but committed data is on disk: this module closes all
  handles, and the next call opens the file again;
- this module never deletes or re-creates an existing file. DuckDB itself deletes a write-ahead log whose database file
  is missing. Its checkpoint at close removes a log by name, even if the log belongs to another database by then.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from serve_app.errors import InvalidRequest, ServiceError, StoreUnavailable
from serve_app.store import failures, opening
from serve_app.store.read_cache import ReadCache
from serve_app.store.session import Session

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 5.0
CLOSE_TIMEOUT_S = 30.0
QUIET_S = 0.5
"""A checkpoint waits this long at most for running sessions to end; meanwhile new sessions wait for it."""
CHECKPOINT_RETRY_S = 5.0
MEMORY_LIMIT_MB = 128
"""DuckDB keeps pages in memory up to this limit: a job of 100,000 rows took 1.6 GB under 2 GB and 140 MB under 128 MB.
It writes the rest beside the database, and the job took 28 s instead of 24 s (docs/measurements.md)."""
MOST_CHANGES = 2**64 - 1
"""More changes than any transaction has."""


class Database:
    """A DuckDB file that opens at the first use and again after a failure.

    `problems` lists what the check at opening found amiss; it is empty for a sound database. Several threads may
    use one `Database`: reads run side by side, each on its own snapshot, and writes run one after another.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory_limit_mb: int = MEMORY_LIMIT_MB,
        threads: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.backups = path.parent / "backups"
        self.problems: list[str] = []
        self.answers = ReadCache()
        self._config: dict[str, Any] = {
            "threads": threads,
            # The limit is set at connect, because DuckDB replays the write-ahead log before any SET.
            "memory_limit": f"{memory_limit_mb}MB",
            # By default DuckDB leaves transactions of 100,000 changes out of the log when it checkpoints at their end.
            # Readers see them before that checkpoint is on disk, and a crash or a lack of memory then takes them back.
            "auto_checkpoint_skip_wal_threshold": str(MOST_CHANGES),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        self._clock = clock
        self._state = threading.Condition()
        self._writing = threading.Lock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._identity: tuple[int, int] | None = None
        self._sessions = 0
        self._epoch: int | None = None
        self._closed = False
        self._failures = 0
        self._retry_at = 0.0
        self._why_not = ""
        self._checkpoint_due = False
        self._checkpoint_at = 0.0
        self._holding_back = False

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a read-only session on one snapshot of the committed data.

        Raises:
            StoreUnavailable: the file cannot be opened or read; the message says why.
        """
        with self._session("BEGIN TRANSACTION READ ONLY") as session:
            yield session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a session that commits all its changes to disk when the block ends, and none when the block raises.

        When the commit itself fails, nobody knows whether it took effect, so every write must be safe to repeat.

        Raises:
            StoreUnavailable: the file cannot be opened or written, or another writer has taken it over.
        """
        with self._writing:
            with self.answers.write(), self._session("BEGIN TRANSACTION") as session:
                epoch = self._claim(session)
                yield session
            self._epoch = epoch
        if self._checkpoint_due and self._clock() >= self._checkpoint_at:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Fold the write-ahead log into the file if that is possible now; if not, a later write or `check` tries again.

        DuckDB refuses a checkpoint while a session still sees rows from before an update, and it frees no space
        without one. The checkpoint therefore gives running sessions a moment to end and holds back new ones.
        """
        self._checkpoint_due = True
        self._checkpoint_at = self._clock() + CHECKPOINT_RETRY_S
        with (
            self._writing,
            suppress(ServiceError),
            self.answers.write(),  # it may move rows, also if it fails
            self._quiet(),
            self.autocommit(although_held_back=True) as session,
        ):
            session.q("CHECKPOINT")
            self._checkpoint_due = False

    @contextmanager
    def autocommit(self, *, although_held_back: bool = False) -> Iterator[Session]:
        """Open a session in which each statement is its own transaction, for statements that no transaction allows.

        Raises:
            StoreUnavailable: the file cannot be opened, or a statement found too little disk or memory.
        """
        cursor = self._enter(although_held_back=although_held_back)
        try:
            yield Session(cursor)
        except duckdb.Error as error:
            raise self._translate(error) from error
        finally:
            self._leave(cursor)

    def check(self) -> list[str]:
        """Read from the file and write to it once, and return `problems`.

        Raises:
            StoreUnavailable: the read or the write failed; the message says why.
        """
        with self.read() as session:
            session.q("SELECT checks FROM meta")
        with self.transaction() as session:
            session.q("UPDATE meta SET checks = checks + 1")
        if self._checkpoint_due:
            self.checkpoint()
        return list(self.problems)

    def size_bytes(self) -> int:
        """The present size of the file and its write-ahead log together."""
        files = (self.path, self.path.with_name(self.path.name + ".wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Wait for running sessions, fold the write-ahead log into the file, and close the file for good."""
        with self._state:
            self._closed = True
            idle = self._state.wait_for(lambda: self._sessions == 0, timeout=CLOSE_TIMEOUT_S)
            root, self._root = self._root, None
            if root is None:
                return
            try:
                if idle and self._on_disk() == self._identity:
                    root.execute("CHECKPOINT").fetchall()
            except duckdb.Error as error:
                logger.warning("the write-ahead log stays beside the database: %s", failures.reason(error))
            finally:
                root.close()

    @contextmanager
    def _session(self, begin: str) -> Iterator[Session]:
        cursor = self._enter()
        try:
            session = Session(cursor)
            session.q(begin)
            yield session
            session.q("COMMIT")
        except BaseException as error:
            with suppress(duckdb.Error):
                cursor.execute("ROLLBACK").fetchall()
            if failures.is_bad_text(error):
                raise InvalidRequest("a text holds characters that are not valid Unicode") from error
            if isinstance(error, duckdb.Error):
                raise self._translate(error) from error
            raise
        finally:
            self._leave(cursor)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Hold back new sessions, and wait up to `QUIET_S` for the running ones to end."""
        with self._state:
            self._holding_back = True
            self._state.wait_for(lambda: self._sessions == 0, timeout=QUIET_S)
        try:
            yield
        finally:
            with self._state:
                self._holding_back = False
                self._state.notify_all()

    def is_in_place(self) -> bool:
        """Whether the file that is open lies where it was opened; a read would fail otherwise."""
        with self._state:
            return self._root is not None and not self._closed and self._on_disk() == self._identity

    def _enter(self, *, although_held_back: bool = False) -> duckdb.DuckDBPyConnection:
        with self._state:
            if not although_held_back:
                self._state.wait_for(lambda: not self._holding_back)
            if self._closed:
                raise StoreUnavailable("The database is closed: the service is stopping or being replaced.")
            if self._root is None:
                if self._sessions:
                    raise StoreUnavailable("The database is being opened again after a failure.")
                self._open()
            elif self._on_disk() != self._identity:
                raise StoreUnavailable(
                    f"The file {self.path.name} was moved, deleted or replaced while in use: put it back, "
                    "or restart the service to use the file that is there now."
                )
            assert self._root is not None
            try:
                cursor = self._root.cursor()
                opening.use(cursor)
            except duckdb.Error as error:
                raise self._translate(error) from error
            self._sessions += 1
            return cursor

    def _leave(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with suppress(duckdb.Error):
            cursor.close()
        with self._state:
            self._sessions -= 1
            self._state.notify_all()

    def _translate(self, error: duckdb.Error) -> ServiceError:
        """The error to raise in place of DuckDB's; a fatal error also closes the instance."""
        if failures.ends_instance(error):
            with self._state:
                root, self._root = self._root, None
            if root is not None:
                with suppress(duckdb.Error):
                    root.close()
        why = failures.reason(error)
        if failures.is_temporary(error):
            logger.warning("the database failed: %s", why, exc_info=error)
            return StoreUnavailable(f"The database could not complete the call: {why}.")
        logger.error("the database refused a statement", exc_info=error)
        return ServiceError("The database refused a statement; the log of the service has the details.")

    def _open(self) -> None:
        """Open the file, apply migrations and look for losses; refuse until the last failure's delay is over."""
        if self._clock() < self._retry_at:
            raise StoreUnavailable(self._why_not)
        try:
            self.answers.forget()
            self._root = opening.connect(self.path, self._config, backups=self.backups)
            self._identity = self._on_disk()
            opening.migrate(Session(self._root))
            self.problems = opening.find_losses(Session(self._root))
        except (duckdb.Error, OSError, StoreUnavailable) as error:
            root, self._root = self._root, None
            if root is not None:
                root.close()
            self._why_not = (
                error.detail
                if isinstance(error, ServiceError)
                else f"The database {self.path.name} cannot be opened: {failures.reason(error)}."
            )
            self._retry_at = self._clock() + min(LAST_RETRY_S, FIRST_RETRY_S * 2**self._failures)
            self._failures += 1
            raise StoreUnavailable(self._why_not) from error
        self._failures = 0
        for problem in self.problems:
            logger.error("data loss suspected: %s", problem)

    def _claim(self, session: Session) -> int:
        """Make sure that this process is still the file's writer; its first write makes it the writer.

        The file's lock keeps other processes out. Locks do not work on some network file systems: there, a writer
        that opens the file again after a failure learns from this check that another writer has used it.
        """
        epoch = int(session.value("SELECT writer_epoch FROM meta"))
        if self._epoch is None:
            session.q("UPDATE meta SET writer_epoch = writer_epoch + 1")
            session.q("DELETE FROM scan_files WHERE scan_id IN (SELECT id FROM scans)")  # a job's go with the job
            session.q("DELETE FROM scans")
            return epoch + 1
        if epoch != self._epoch:
            raise StoreUnavailable("Another writer has taken over the database; this one must be restarted.")
        return epoch

    def _on_disk(self) -> tuple[int, int] | None:
        """Device and inode of the file at the path now; None when there is none."""
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino
