"""SQL on one cursor, inside one transaction."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import duckdb

Row = tuple[Any, ...]


def quoted(text: str) -> str:
    """A text as an SQL literal, for the few statements that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


class Session:
    """Runs statements and always fetches the whole result.

    A partly fetched result keeps an old version of the data alive (measured: a database of 15 MB grew to 218 MB),
    so this class offers no way to fetch a part.
    """

    def __init__(self, cursor: "duckdb.DuckDBPyConnection") -> None:
        self._cursor = cursor

    def q(self, sql: str, *parameters: object) -> list[Row]:
        """All rows of a statement."""
        rows: list[Row] = self._cursor.execute(sql, list(parameters)).fetchall()
        return rows

    def row(self, sql: str, *parameters: object) -> Row | None:
        """The first row, or None."""
        rows = self.q(sql, *parameters)
        return rows[0] if rows else None

    def value(self, sql: str, *parameters: object) -> Any:
        """The first column of the first row; an INSERT, UPDATE or DELETE returns the number of changed rows there.

        Raises:
            LookupError: the statement returned no row.
        """
        rows = self.q(sql, *parameters)
        if not rows:
            raise LookupError("the statement returned no row")
        return rows[0][0]

    def arrow(self, sql: str, *parameters: object) -> pa.Table:
        """All rows of a SELECT as an Arrow table; vectors do not become Python objects."""
        return self._cursor.sql(sql, params=list(parameters)).to_arrow_table()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Interrupt the statements of the block after some time; they then raise `duckdb.InterruptException`."""
        timer = threading.Timer(seconds, self._cursor.interrupt)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def bind(self, name: str, table: pa.Table) -> None:
        """Let statements of this session read an Arrow table by name."""
        self._cursor.register(name, table)
