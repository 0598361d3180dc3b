"""Whether the store works, for readiness."""

from typing import TYPE_CHECKING, get_args

from serve_app.records import JobStatus, StoreFigures
from serve_app.store.methods import write

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database


class Health:
    """The store's own condition."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    @write
    def check(self) -> list[str]:
        """Read and write once for real; return what looks like lost data, one sentence each, none when all is well.

        Raises:
            StoreUnavailable: the database cannot be read or written; the message says why.
        """
        return self._database.check()

    def figures(self) -> StoreFigures:
        """What the dashboard shows of the database. Raises `StoreUnavailable`."""
        with self._database.read() as session:
            jobs: dict[JobStatus, int] = dict.fromkeys(get_args(JobStatus), 0)
            jobs |= dict(session.q("SELECT status, count(*) FROM jobs GROUP BY status"))
            epoch = int(session.value("SELECT writer_epoch FROM meta"))
        return StoreFigures(writer_epoch=epoch, jobs=jobs, file_bytes=self._database.size_bytes())
