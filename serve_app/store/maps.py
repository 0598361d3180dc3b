"""The map that a set has, or that the set before it had: how it was made, and where each content lies.

A content is a number that two vectors share if they come from the same bytes, as `search.contents` makes it. Points are
read by ranges of it, so that rows which a checkpoint moves between two pages are read once.
"""

import json
from typing import TYPE_CHECKING

from serve_app.errors import Conflict, InvalidRequest
from serve_app.records import LastMap
from serve_app.store import job_rows, making, readout, sets
from serve_app.store.datasets import require_dataset
from serve_app.store.session import Session
from serve_app.store.sets import Current

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

_CONTENTS = 2**64


class Maps:
    """SQL over the points of maps that stay."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    def last(self, dataset_id: str, *, version: str) -> LastMap | None:
        """The map of this version of the vectors, or the kept one of the set before; None where there is none.

        Raises:
            DatasetNotFound: no such dataset.
            Conflict: the vectors or samples are of another version now.
        """
        with self._database.read() as session:
            now = _of_version(session, dataset_id, version)
            job_id = _last_of(now)
            if job_id is None:
                return None
            row = job_rows.load(session, job_id)
        return LastMap(row.id, json.loads(row.params), row.total, making.read(row.params))

    def points(self, dataset_id: str, *, version: str, part: int, parts: int) -> bytes:
        """One of `parts` nearly equal parts of the points of `last`, the first being 0, as one Arrow IPC stream.

        The columns are content, x, y; points without a content are left out.

        Raises:
            DatasetNotFound, Conflict: as `last`.
            InvalidRequest: there is no such part.
        """
        if not 0 <= part < parts:
            raise InvalidRequest(f"there is no part {part} of {parts}")
        first, last = (bound * _CONTENTS // parts for bound in (part, part + 1))
        with self._database.read() as session:
            now = _of_version(session, dataset_id, version)
            return readout.contents(session, _last_of(now), first, last - 1)


def completed(
    session: Session, now: Current | None, params: dict[str, object], defaults: dict[str, object]
) -> dict[str, object]:
    """The parameters of a new map: those of the set's last map, or else `defaults`, stand for what is left out.

    With `redraw`, the last map has no say.
    """
    job_id = _last_of(now) if now is not None and not params.get("redraw") else None
    last = json.loads(job_rows.load(session, job_id).params) if job_id is not None else {}
    return {name: last.get(name, value) for name, value in defaults.items()} | params


def _last_of(now: Current) -> str | None:
    """The job whose points are the set's map, or the map of the set before it; None where there is none."""
    return now.map_job_id or now.earlier_map_job_id


def _of_version(session: Session, dataset_id: str, version: str) -> Current:
    require_dataset(session, dataset_id)
    now = sets.of_version(session, dataset_id, version)
    if now is None:
        raise Conflict("The vectors were replaced or the dataset rescanned while the map was read; start it again.")
    return now
