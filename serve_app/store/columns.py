"""Columns of datasets: replaced in bulk, and listed with what is in them.

A column is a row of `dataset_columns`, and its values lie in the table of its type, one row
for each sample that has one. They are kept by sample id, so they survive rescans.
"""

from typing import TYPE_CHECKING

from serve_app.errors import Conflict, InvalidRequest, NotFound
from serve_app.store import column_rows, filtering, readout
from serve_app.store.column_records import ColumnInfo, ColumnsChange, ValueCount
from serve_app.store.column_rows import GivenColumns
from serve_app.store.datasets import require_dataset
from serve_app.store.filtering import LISTED, TAG, Stored
from serve_app.store.methods import parse_cursor, require_limit, write
from serve_app.store.session import Session

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

MAX_VALUES = 100
"""The number of values that are listed for a column of text, the most frequent first."""

_BREAKS = r"[\n\x0b\f\r\x1c-\x1e\x{85}\x{2028}\x{2029}]|^bytes:.*%(0[A-D]|1[C-E]|C2%85|E2%80%A[89])"
"""Where Python's `splitlines`, and so Ultralytics, ends a line; names that are no Unicode are percent-quoted bytes."""

_LISTED = "SELECT {} AS value FROM samples s WHERE dataset_id = ?"
_TAGS = "SELECT tag AS value FROM tags SEMI JOIN samples USING (dataset_id, sample_id) WHERE dataset_id = ?"


class Columns:
    """SQL over `dataset_columns` and the tables of values."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    @write
    def put(self, dataset_id: str, given: GivenColumns) -> ColumnsChange:
        """Add columns, or replace those that have the names, in one transaction that may be repeated.

        A replaced column keeps none of its old values; tags change on the samples of the rows alone. Rows that name no
        sample, several samples, or the sample of an earlier row are refused and counted.

        Raises:
            DatasetNotFound: no such dataset.
            InvalidRequest: no row names a sample, a name is taken by the listing, or there are too many columns.
        """
        with self._database.transaction() as session:
            require_dataset(session, dataset_id)
            n_rows = column_rows.match(session, dataset_id, given)
            refused = column_rows.refused(session)
            matched = int(session.value("SELECT count(*) FROM matches WHERE usable"))
            if not matched:
                example = f", such as {refused[0].examples[0]!r}" if refused else ""
                raise InvalidRequest(f"none of {n_rows:,} rows{example} names a sample by its {given.key_column}")
            column_rows.replace(session, dataset_id, given, "put")
            if given.has_tags:
                column_rows.replace_tags(session, dataset_id)
        self._database.checkpoint()
        columns = [*given.types, *([TAG] if given.has_tags else [])]
        return ColumnsChange(columns=columns, rows=n_rows, matched=matched, refused=refused)

    @write
    def remove(self, dataset_id: str, name: str) -> int:
        """Delete a stored column; return 1, or 0 where there is none of the name. Raises `DatasetNotFound`."""
        with self._database.transaction() as session:
            require_dataset(session, dataset_id)
            return column_rows.drop(session, dataset_id, name)

    def rows(
        self, dataset_id: str, *, after: str | None, limit: int, where: str | None = None, model: str | None = None
    ) -> tuple[bytes, str | None]:
        """A page of the samples with their columns as one Arrow IPC stream, and the next `after` (None at the end).

        The columns are sample_id, file_name, label, the stored ones, and tag (a list) where the dataset has tags.
        `after` is None for the first page.

        Raises:
            DatasetNotFound: no such dataset.
            Conflict: the samples, or the map of the filter's regions, have changed since the previous page.
            InvalidRequest: the limit is not positive, or `after` is malformed.
            InvalidFilter: `where` is no filter over the dataset's columns.
        """
        require_limit(limit)
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            sample_count, scan_no = session.q("SELECT sample_count, scan_no FROM datasets WHERE id = ?", dataset_id)[0]
            version = f"{scan_no} {filtering.map_of(session, dataset_id, where, model)}".rstrip()
            start = -1
            if after is not None:
                ordinal, _, read = after.partition(" of ")
                if read != version:
                    raise Conflict("The dataset was rescanned or its map made anew while it was read; start again.")
                start = parse_cursor(ordinal)
            only = filtering.choose(session, dataset_id, where, model=model, page=(start, start + limit))
            page = readout.sample_page(session, dataset_id, start, limit, only)
        return page, f"{start + limit} of {version}" if start + limit < sample_count - 1 else None

    def unlistable(self, dataset_id: str, where: str | None = None, model: str | None = None) -> tuple[int, str | None]:
        """The number of samples whose file name has a line break, so that no list of names can hold it, and a name.

        Raises:
            DatasetNotFound: no such dataset.
            InvalidFilter: `where` is no filter over the dataset's columns.
        """
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            only = filtering.choose(session, dataset_id, where, model=model)
            [(count, example)] = session.q(
                "SELECT count(*), min(file_name) FROM samples s WHERE dataset_id = ? AND "
                f"regexp_matches(file_name, ?) {only}",
                dataset_id,
                _BREAKS,
            )
        return int(count), example

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
                _described(session, name, kind, _LISTED.format(sql), dataset_id, "listing")
                for name, (kind, sql) in LISTED.items()
                if name not in taken
            ]
            tags = _described(session, TAG, "text", _TAGS, dataset_id, "tags")
            return [*listed, tags, *(_of(session, column, dataset_id) for column in columns)]

    def values(self, dataset_id: str, name: str, *, after: int, limit: int) -> tuple[bytes, int | None]:
        """A page of a column as an Arrow IPC stream of `sample_id` and `value`, and the next `after` (None at the end).

        A sample without a value has none here either. `after` is -1 for the first page. A rescan between two pages may
        leave samples out or repeat them.

        Raises:
            DatasetNotFound: no such dataset.
            NotFound: the dataset has no column of the name.
            InvalidRequest: the limit is not positive.
        """
        require_limit(limit)
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            found = filtering.valued(session, dataset_id, name)
            if found is None:
                raise NotFound(f"the dataset has no column {name!r}")
            page = readout.column_page(session, dataset_id, *found, after=after, limit=limit)
            last = int(session.value("SELECT coalesce(max(ordinal), -1) FROM samples WHERE dataset_id = ?", dataset_id))
        return page, after + limit if after + limit < last else None


def _of(session: Session, column: Stored, dataset_id: str) -> ColumnInfo:
    values = (
        f"SELECT value FROM {column.table} SEMI JOIN (FROM samples WHERE dataset_id = ?) s USING (sample_id) "
        f"WHERE column_id = {column.column_id}"
    )
    return _described(session, column.name, column.type, values, dataset_id, column.origin, is_stored=True)


def _described(
    session: Session, name: str, kind: str, values: str, dataset_id: str, origin: str, *, is_stored: bool = False
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
        origin=origin,
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
