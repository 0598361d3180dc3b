"""Rows that nobody reads any more: named in one table, deleted in small steps between other writes.

A transaction that replaces a set, ends a job without success or deletes a dataset names the rows that it leaves
behind. It costs the same at any size, and a crash leaves the names where they are.
"""

from typing import TYPE_CHECKING

from serve_app.store.schema import dimensions, vectors_table
from serve_app.store.session import Session

if TYPE_CHECKING:  # callers in other processes name the store's methods and do not load DuckDB
    from serve_app.store.database import Database

STEP_ROWS = 10_000
"""The rows that one step deletes; a write that comes meanwhile waits for one step."""

_KEYS = {"points": "job_id", "job_skips": "job_id", "samples": "dataset_id", "scan_files": "scan_id"}


def retire(session: Session, relation: str, *ids: str) -> None:
    """Name rows of a table by the id of their job, or of their dataset in `samples`. Nobody may read them from now."""
    for name in ids:
        session.q("INSERT INTO retired VALUES (?, ?)", relation, name)


def wipe(session: Session, relation: str, name: str) -> None:
    """Delete the rows at once, page by page, in this one transaction."""
    while _delete(session, relation, _keys(session)[relation], name, STEP_ROWS):
        pass


class Retired:
    """Deletes what is named in `retired`."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    def step(self) -> bool:
        """Delete at most `STEP_ROWS` rows in one transaction, and return whether it found any names.

        After the last row the file's space is given back by a checkpoint. A step may be repeated, and a later
        process goes on where this one ended.

        Raises:
            StoreUnavailable: the file cannot be written.
        """
        with self._database.read() as session:
            if session.row("SELECT 1 FROM retired LIMIT 1") is None:
                return False
        with self._database.transaction() as session:
            _step(session)
            is_done = session.row("SELECT 1 FROM retired LIMIT 1") is None
        if is_done:
            self._database.checkpoint()
        return True


def _step(session: Session) -> None:
    keys = _keys(session)
    left = STEP_ROWS
    for relation, name in session.q("SELECT relation, id FROM retired ORDER BY ALL"):
        left -= _delete(session, relation, keys[relation], name, left)
        if left <= 0:
            return  # perhaps this one has more
        session.q("DELETE FROM retired WHERE relation = ? AND id = ?", relation, name)


def _keys(session: Session) -> dict[str, str]:
    return _KEYS | {vectors_table(dimension): "job_id" for dimension in dimensions(session)}


def _delete(session: Session, relation: str, key: str, name: str, limit: int) -> int:
    """Delete the first `limit` of the rows, as they are stored, and return how many there were."""
    first, last = session.q(
        f"SELECT min(place), max(place) FROM (SELECT rowid AS place FROM {relation} WHERE {key} = ? LIMIT ?)",
        *(name, limit),
    )[0]
    if first is None:
        return 0
    return int(session.value(f"DELETE FROM {relation} WHERE {key} = ? AND rowid BETWEEN ? AND ?", name, first, last))
