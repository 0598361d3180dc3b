"""Whether the store works, for readiness."""

from typing import TYPE_CHECKING

from serve_app.store.marks import write

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
