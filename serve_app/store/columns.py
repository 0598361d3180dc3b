"""Columns of datasets: replaced in bulk, listed with what is in them, and asked by filters.

N is the number of rows. A column is a row of `dataset_columns`, and its values lie in the table of its type, one row
for each sample that has one. They are kept by sample id, so they survive rescans.
"""

from typing import TYPE_CHECKING

import pyarrow as pa

from serve_app.errors import InvalidRequest
from serve_app.records import ColumnInfo, ColumnsChange, RefusedRows, ValueCount
from serve_app.store import filtering
from serve_app.store.datasets import require_dataset
from serve_app.store.filtering import LISTED, TAG, Stored
from serve_app.store.methods import write
from serve_app.store.schema import values_table
from serve_app.store.session import Session

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

MAX_COLUMNS = 500
MAX_VALUES = 100
"""The number of values that are listed for a column of text, the most frequent first."""
EXAMPLES = 10
FIXED = frozenset({*LISTED, TAG, "model_name", "vector", "x", "y"}) - {"split"}
"""The names that a stored column cannot have: an export has them for what the listing, tags and vectors say."""

_LISTED = "SELECT {} AS value FROM samples s WHERE dataset_id = ?"
_TAGS = "SELECT tag AS value FROM tags SEMI JOIN samples USING (dataset_id, sample_id) WHERE dataset_id = ?"
_MATCHES = (
    "SELECT position, key, n, sample_id, n = 1 AND row_number() OVER (PARTITION BY sample_id ORDER BY position) = 1 "
    "AS usable FROM (SELECT g.position, g.key, count(s.sample_id) AS n, any_value(s.sample_id) AS sample_id "
    "FROM given g LEFT JOIN (FROM samples WHERE dataset_id = ?) s ON s.{} = g.key GROUP BY ALL)"
)


class Columns:
    """SQL over `dataset_columns` and the tables of values."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    @write
    def put(self, dataset_id: str, key_column: str, types: dict[str, str], table: bytes) -> ColumnsChange:
        """Add columns, or replace those that have the names, in one transaction that may be repeated.

        A replaced column keeps none of its old values. Rows that name no sample, several samples, or the sample of an
        earlier row are refused and counted.

        Args:
            dataset_id: the dataset.
            key_column: "sample_id" or "file_name".
            types: the type of each column, by name.
            table: an Arrow IPC stream of N rows: `key`, and `c0`, `c1`, … in the order of `types`.

        Raises:
            DatasetNotFound: no such dataset.
            InvalidRequest: no row names a sample, a name is taken by the listing, or there are too many columns.
        """
        if key_column not in ("sample_id", "file_name"):
            raise InvalidRequest("rows are named by sample_id or file_name")
        given = pa.ipc.open_stream(table).read_all()
        given = given.append_column("position", pa.array(range(given.num_rows), pa.int64()))
        with self._database.transaction() as session:
            require_dataset(session, dataset_id)
            session.bind("given", given)
            session.bind("matches", session.arrow(_MATCHES.format(key_column), dataset_id))
            refused = _refused(session)
            matched = int(session.value("SELECT count(*) FROM matches WHERE usable"))
            if not matched:
                example = f", such as {refused[0].examples[0]!r}" if refused else ""
                raise InvalidRequest(f"none of {given.num_rows:,} rows{example} names a sample by its {key_column}")
            for place, (name, type_name) in enumerate(types.items()):
                _replace(session, dataset_id, name, type_name, f"c{place}")
        self._database.checkpoint()
        return ColumnsChange(columns=list(types), rows=given.num_rows, matched=matched, refused=refused)

    @write
    def remove(self, dataset_id: str, name: str) -> int:
        """Delete a stored column; return 1, or 0 where there is none of the name. Raises `DatasetNotFound`."""
        with self._database.transaction() as session:
            require_dataset(session, dataset_id)
            return _drop(session, dataset_id, name)

    def all(self, dataset_id: str) -> list[ColumnInfo]:
        """Every column with what is in it: what the listing gives, `tag`, and the stored ones.

        Raises:
            DatasetNotFound: no such dataset.
        """
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            columns = filtering.stored(session, dataset_id)
            taken = {column.name.casefold() for column in columns}
            listed = [
                _described(session, name, kind, _LISTED.format(sql), dataset_id)
                for name, (kind, sql) in LISTED.items()
                if name not in taken
            ]
            tags = _described(session, TAG, "text", _TAGS, dataset_id)
            return [*listed, tags, *(_of(session, column, dataset_id) for column in columns)]


def _refused(session: Session) -> list[RefusedRows]:
    found = session.q(
        "SELECT CASE n WHEN 0 THEN 'unknown_sample' WHEN 1 THEN 'duplicate' ELSE 'ambiguous' END AS reason, count(*), "
        f"list(key ORDER BY position)[:{EXAMPLES}] FROM matches WHERE NOT usable GROUP BY reason ORDER BY count(*) DESC"
    )
    return [RefusedRows(*row) for row in found]


def _replace(session: Session, dataset_id: str, name: str, type_name: str, place: str) -> None:
    if name.casefold() in FIXED:
        raise InvalidRequest(f"the column {name!r} follows from the listing, tags or vectors; choose another name")
    _drop(session, dataset_id, name)
    if session.value("SELECT count(*) FROM dataset_columns WHERE dataset_id = ?", dataset_id) >= MAX_COLUMNS:
        raise InvalidRequest(f"a dataset has at most {MAX_COLUMNS} columns")
    column_id = int(session.value("SELECT coalesce(max(column_id), 0) + 1 FROM dataset_columns"))
    session.q("INSERT INTO dataset_columns VALUES (?, ?, ?, ?)", dataset_id, name, type_name, column_id)
    session.q(
        f"INSERT INTO {values_table(type_name)} SELECT ?, m.sample_id, g.{place} FROM given g JOIN matches m "
        f"USING (position) WHERE m.usable AND g.{place} IS NOT NULL",
        column_id,
    )


def _drop(session: Session, dataset_id: str, name: str) -> int:
    old = [c for c in filtering.stored(session, dataset_id) if c.name.casefold() == name.casefold()]
    for column in old:
        session.q(f"DELETE FROM {column.table} WHERE column_id = ?", column.column_id)
        session.q("DELETE FROM dataset_columns WHERE column_id = ?", column.column_id)
    return len(old)


def _of(session: Session, column: Stored, dataset_id: str) -> ColumnInfo:
    values = (
        f"SELECT value FROM {column.table} SEMI JOIN (FROM samples WHERE dataset_id = ?) s USING (sample_id) "
        f"WHERE column_id = {column.column_id}"
    )
    return _described(session, column.name, column.type, values, dataset_id, is_stored=True)


def _described(
    session: Session, name: str, kind: str, values: str, dataset_id: str, *, is_stored: bool = False
) -> ColumnInfo:
    """A column, by an SQL query of its values that takes the dataset's id."""
    count, distinct, least, greatest = session.q(
        f"SELECT count(value), count(DISTINCT value), min(value), max(value) FROM ({values})", dataset_id
    )[0]
    top = session.q(
        f"SELECT value, count(*) FROM ({values}) WHERE value IS NOT NULL GROUP BY value ORDER BY count(*) DESC, value "
        f"LIMIT {MAX_VALUES if kind == 'text' and name not in ('sample_id', 'file_name') else 0}",
        dataset_id,
    )
    has_range = kind in ("number", "time")
    return ColumnInfo(
        name=name,
        type=kind,
        is_stored=is_stored,
        count=count,
        distinct=distinct,
        values=[ValueCount(*row) for row in top],
        min=_plain(least) if has_range else None,
        max=_plain(greatest) if has_range else None,
    )


def _plain(value: object) -> float | str | None:
    if value is None or isinstance(value, float):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
