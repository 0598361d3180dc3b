"""Rows of columns and their values: functions that add, replace and drop columns inside a transaction.

N is the number of rows. A column's origin says who may replace it: a client's file replaces any column, a rescan only
those that came from the source or from reading images, and reading only its own.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from serve_app.errors import InvalidRequest
from serve_app.records import FileStamp
from serve_app.store import filtering
from serve_app.store.column_records import RefusedRows
from serve_app.store.filtering import LISTED, TAG, Stored
from serve_app.store.session import Session

Origin = Literal["put", "source", "read"]

MAX_COLUMNS = 500
EXAMPLES = 10
HEADER_COLUMNS = {"width": "number", "height": "number", "format": "text"}
"""What jobs read in the headers of images."""
FIXED = frozenset({*LISTED, TAG, "model_name", "vector", "x", "y"}) - {"split"}
"""The names that a stored column cannot have: an export has them for what the listing, tags and vectors say."""

_MATCHES = (
    "SELECT position, key, n, sample_id, n = 1 AND row_number() OVER (PARTITION BY sample_id ORDER BY position) = 1 "
    "AS usable FROM (SELECT g.position, g.key, count(s.sample_id) AS n, any_value(s.sample_id) AS sample_id "
    "FROM given g LEFT JOIN (FROM samples WHERE dataset_id = ?) s ON s.{} = g.key GROUP BY ALL)"
)


@dataclass(frozen=True, slots=True)
class GivenColumns:
    """Columns of a file or a source: the type of each by name, and an Arrow IPC stream of N rows.

    The stream has `key`, then `c0`, `c1`, … in the order of `types`, and with `has_tags` also `tag`, lists of texts.
    `key_column` is "sample_id" or "file_name".
    """

    key_column: str
    types: dict[str, str]
    table: bytes
    has_tags: bool = False


def match(session: Session, dataset_id: str, given: GivenColumns) -> int:
    """Bind the rows as `given` and the samples that they name as `matches`; return the number of rows.

    Raises:
        InvalidRequest: `key_column` is another name.
    """
    if given.key_column not in ("sample_id", "file_name"):
        raise InvalidRequest("rows are named by sample_id or file_name")
    rows = pa.ipc.open_stream(given.table).read_all()
    session.bind("given", rows.append_column("position", pa.array(range(rows.num_rows), pa.int64())))
    session.bind("matches", session.arrow(_MATCHES.format(given.key_column), dataset_id))
    return len(rows)


def refused(session: Session) -> list[RefusedRows]:
    """The bound rows that name no sample, several, or one that an earlier row named."""
    found = session.q(
        "SELECT CASE n WHEN 0 THEN 'unknown_sample' WHEN 1 THEN 'duplicate' ELSE 'ambiguous' END AS reason, count(*), "
        f"list(key ORDER BY position)[:{EXAMPLES}] FROM matches WHERE NOT usable GROUP BY reason ORDER BY count(*) DESC"
    )
    return [RefusedRows(*row) for row in found]


def replace(
    session: Session, dataset_id: str, given: GivenColumns, origin: Origin, *, but: frozenset[str] = frozenset()
) -> None:
    """Write the bound rows as columns in the place of those that have the names; the names of `but` are left out.

    Raises:
        InvalidRequest: a name is taken by the listing, or there are too many columns.
    """
    for place, (name, type_name) in enumerate(given.types.items()):
        if name in but:
            continue
        if name.casefold() in FIXED:
            raise InvalidRequest(f"the column {name!r} follows from the listing, tags or vectors; choose another name")
        drop(session, dataset_id, name)
        column = add(session, dataset_id, name, type_name, origin)
        session.q(
            f"INSERT INTO {column.table} SELECT ?, m.sample_id, g.c{place} FROM given g JOIN matches m "
            f"USING (position) WHERE m.usable AND g.c{place} IS NOT NULL",
            column.column_id,
        )


def replace_tags(session: Session, dataset_id: str) -> None:
    """Give the samples of the bound rows the tags of their rows, in the place of those that they have."""
    session.q(
        "DELETE FROM tags WHERE dataset_id = ? AND sample_id IN (SELECT sample_id FROM matches WHERE usable)",
        dataset_id,
    )
    session.q(
        "INSERT INTO tags SELECT DISTINCT ?, tag, sample_id FROM (SELECT unnest(g.tag) AS tag, m.sample_id "
        "FROM given g JOIN matches m USING (position) WHERE m.usable) WHERE tag IS NOT NULL",
        dataset_id,
    )


def add(session: Session, dataset_id: str, name: str, type_name: str, origin: Origin) -> Stored:
    """A new column without values. Raises `InvalidRequest` if there are too many columns."""
    if session.value("SELECT count(*) FROM dataset_columns WHERE dataset_id = ?", dataset_id) >= MAX_COLUMNS:
        raise InvalidRequest(f"a dataset has at most {MAX_COLUMNS} columns")
    column_id = int(session.value("SELECT coalesce(max(column_id), 0) + 1 FROM dataset_columns"))
    session.q(
        "INSERT INTO dataset_columns (dataset_id, name, type, column_id, origin) VALUES (?, ?, ?, ?, ?)",
        *(dataset_id, name, type_name, column_id, origin),
    )
    return Stored(name, type_name, column_id, origin)


def drop(session: Session, dataset_id: str, name: str) -> int:
    """Delete a column with its values; return 1, or 0 if there is none of the name in any case."""
    old = [column for column in filtering.stored(session, dataset_id) if column.name.casefold() == name.casefold()]
    for column in old:
        _delete(session, column)
    return len(old)


def take_source(session: Session, dataset_id: str, given: GivenColumns | None) -> tuple[str, ...]:
    """Put this scan's columns in the place of those of earlier scans; return a sentence about each kind left out.

    A column that a client put stays, and the source's of the same name is left out.
    """
    for column in filtering.stored(session, dataset_id):
        if column.origin == "source":
            _delete(session, column)
    if given is None:
        return ()
    others = filtering.stored(session, dataset_id)
    theirs = {column.name.casefold() for column in others if column.origin == "put"}
    clashing = [name for name in given.types if name.casefold() in theirs]
    fitting = [name for name in given.types if name not in clashing]
    surplus = fitting[max(0, MAX_COLUMNS - len(others)) :]
    match(session, dataset_id, given)
    replace(session, dataset_id, given, "source", but=frozenset([*clashing, *surplus]))
    notices = []
    if clashing:
        notices.append(
            f"left out: the source's {_columns(clashing)}, because a client put columns of these names; "
            "delete those to have the source's at the next rescan"
        )
    if surplus:
        notices.append(f"left out: {_columns(surplus)}; a dataset has at most {MAX_COLUMNS} columns")
    return tuple(notices)


def put_headers(session: Session, dataset_id: str, stamps: list[tuple[str, FileStamp]]) -> None:
    """Write what a job read in the headers of images, by sample id, into the columns width, height and format.

    A column of the name that came from elsewhere stays as it is. Images that the job did not read keep their values,
    and the values stay if the job ends without a set: they say something about the images.
    """
    rows = [(sample_id, stamp) for sample_id, stamp in stamps if stamp.format]
    if not rows:
        return
    table = {
        "sample_id": pa.array([sample_id for sample_id, _ in rows], pa.string()),
        "width": pa.array([stamp.width for _, stamp in rows], pa.int32()),
        "height": pa.array([stamp.height for _, stamp in rows], pa.int32()),
        "format": pa.array([stamp.format for _, stamp in rows], pa.string()),
    }
    session.bind("headers", pa.table(table))
    columns = filtering.stored(session, dataset_id)
    taken = {column.name.casefold(): column for column in columns}
    for name, type_name in HEADER_COLUMNS.items():
        column = taken.get(name)
        if column is None and len(columns) + len(HEADER_COLUMNS) <= MAX_COLUMNS:
            column = add(session, dataset_id, name, type_name, "read")
        if column is None or column.origin != "read":
            continue
        session.q(
            f"DELETE FROM {column.table} WHERE column_id = ? AND sample_id IN (SELECT sample_id FROM headers)",
            column.column_id,
        )
        session.q(f"INSERT INTO {column.table} SELECT ?, sample_id, {name} FROM headers", column.column_id)


def _columns(names: list[str]) -> str:
    others = len(names) - EXAMPLES
    return f"column{'s' * (len(names) > 1)} {', '.join(map(repr, names[:EXAMPLES]))}" + (
        f" and {others:,} more" if others > 0 else ""
    )


def _delete(session: Session, column: Stored) -> None:
    session.q(f"DELETE FROM {column.table} WHERE column_id = ?", column.column_id)
    session.q("DELETE FROM dataset_columns WHERE column_id = ?", column.column_id)
