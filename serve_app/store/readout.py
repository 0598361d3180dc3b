"""Reads a dataset's current vectors and map page by page, as Arrow IPC.

DuckDB has little memory, so no statement here needs more of it than a page takes, however many rows the file has: none
sorts or joins vectors of a whole set. A page is a range of ordinals, which have no gaps, or of places in the table.
"""

import numpy as np
import pyarrow as pa

from serve_app.errors import Conflict
from serve_app.store import filtering
from serve_app.store.methods import parse_cursor
from serve_app.store.session import Session
from serve_app.store.sets import Current

SPACE_KEY = "space_key"
"""The key of an export's schema metadata that holds the vectors' space."""
MAP_IS_NEW = "The map was made anew while it was read; ask for it again."

_POINTS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("file_name", pa.string()),
        ("label", pa.string()),
    ]
)


def places(session: Session, now: Current, after: int, limit: int, only: str = "") -> pa.Table:
    """Ordinal, place in the table, id, file name and label of the samples with a vector and an ordinal in the range.

    This reads the names of the whole set; a join that carried vectors would read all of them. `only` is a further
    condition on the samples, as `filtering.choose` returns it.
    """
    return session.arrow(
        f"SELECT s.ordinal, v.rowid AS place, s.sample_id, s.file_name, s.label FROM {now.table} v "
        "JOIN samples s USING (sample_id) WHERE v.job_id = ? AND s.dataset_id = ? "
        f"AND s.ordinal > ? AND s.ordinal <= ? {only}",
        *(now.job_id, now.dataset_id, after, after + limit),
    ).sort_by("ordinal")


def names_page(session: Session, now: Current, after: int, limit: int) -> tuple[bytes, int | None]:
    """The samples whose ordinal is in (after, after + limit] as an Arrow IPC stream, and the next `after`."""
    rows = session.arrow(
        "SELECT ordinal, sample_id, file_name, label FROM samples "
        "WHERE dataset_id = ? AND ordinal > ? AND ordinal <= ?",
        *(now.dataset_id, after, after + limit),
    ).sort_by("ordinal")
    return _ipc(rows.drop_columns(["ordinal"])), _next(now, after, limit)


def matching(session: Session, now: Current, only: str) -> bytes:
    """One bit for each sample, in the order of ordinals: whether the condition `only` holds for it."""
    chosen = session.arrow(f"SELECT s.ordinal FROM samples s WHERE s.dataset_id = ? {only}", now.dataset_id)
    bits = np.zeros(now.sample_count, bool)
    bits[chosen.column("ordinal").to_numpy()] = True
    return np.packbits(bits).tobytes()


def rows_page(session: Session, now: Current, after: int, limit: int) -> tuple[bytes, int | None]:
    """At most `limit` rows of the set in the order in which they are stored, and the next `after`.

    No other order can be read in pages: to sort, or to join with the samples, needs memory for the whole set.
    """
    first = session.value(f"SELECT min(rowid) FROM {now.table} WHERE job_id = ? AND rowid > ?", now.job_id, after)
    last = after if first is None else first + limit - 1
    rows = session.arrow(
        f"SELECT sample_id, content_hash, vector FROM {now.table} WHERE job_id = ? AND rowid > ? AND rowid <= ?",
        *(now.job_id, after, last),
    )
    return _ipc(rows), None if first is None else last


def points_page(
    session: Session, now: Current, after: str | None, limit: int, only: str = ""
) -> tuple[bytes, str | None]:
    """A page of the map as an Arrow IPC stream, and the cursor of the next page, which also names the map's version.

    `only` is a further condition on the samples, as `filtering.choose` returns it.

    Raises:
        Conflict: the cursor belongs to another version of the map.
    """
    this_map = f"{now.public.version}, map {now.map_job_id}"
    start = -1
    if after is not None:
        ordinal, _, version = after.partition(" of ")
        if version != this_map:
            raise Conflict(MAP_IS_NEW)
        start = parse_cursor(ordinal)
    rows = session.arrow(
        "SELECT s.ordinal, s.sample_id, p.x, p.y, s.file_name, s.label FROM points p JOIN samples s USING (sample_id) "
        f"WHERE p.job_id = ? AND s.dataset_id = ? AND s.ordinal > ? AND s.ordinal <= ? {only}",
        *(now.map_job_id, now.dataset_id, start, start + limit),
    ).sort_by("ordinal")
    more = _next(now, start, limit)
    return _ipc(rows.drop_columns(["ordinal"]).cast(_POINTS)), None if more is None else f"{more} of {this_map}"


def contents(session: Session, map_job_id: str | None, first: int, last: int) -> bytes:
    """`content`, x and y of the points of a job whose content is in [first, last], as an Arrow IPC stream."""
    rows = session.arrow(
        "SELECT content, x, y FROM points WHERE job_id = ? AND content BETWEEN ?::UBIGINT AND ?::UBIGINT",
        *(map_job_id, first, last),
    )
    return _ipc(rows)


def no_points() -> bytes:
    """The map of a dataset without vectors, as an Arrow IPC stream."""
    return _ipc(_POINTS.empty_table())


def export_page(session: Session, now: Current, page: pa.Table, *, after: int, limit: int) -> tuple[bytes, int | None]:
    """A page of the dataset with its vectors as an Arrow IPC stream, and the ordinal after which the next begins.

    `page` has the `places` of the samples that are wanted.

    Raises:
        Conflict: rows of the set have moved since their places were found.
    """
    session.bind("page", page)
    at = page.column("place").to_numpy()
    points = "SELECT s.place, p.x, p.y FROM points p JOIN page s USING (sample_id) WHERE p.job_id = ?"
    session.bind("placed", session.arrow(points, now.map_job_id))
    more = filtering.exported(session, now.dataset_id)
    rows = session.arrow(
        f"SELECT s.ordinal, v.sample_id, s.file_name, s.label, ?, v.vector, p.x, p.y{more.select} "
        f"FROM {now.table} v JOIN page s ON s.place = v.rowid AND s.sample_id = v.sample_id "
        f"LEFT JOIN placed p ON p.place = s.place{more.joins} WHERE v.job_id = ? AND v.rowid BETWEEN ? AND ?",
        *(now.model_name, now.job_id),
        *((int(at.min()), int(at.max())) if len(at) else (0, -1)),
    ).sort_by("ordinal")
    if len(rows) != len(page):
        raise Conflict("The vectors were moved while they were read; start it again.")
    schema = pa.schema(
        [
            ("sample_id", pa.string()),
            ("file_name", pa.string()),
            ("label", pa.string()),
            ("model_name", pa.string()),
            ("vector", pa.list_(pa.float32(), now.dimension)),
            ("x", pa.float64()),
            ("y", pa.float64()),
            *more.fields,
        ],
        metadata={SPACE_KEY: now.space_key},
    )
    rows = rows.drop_columns(["ordinal"]).rename_columns(schema.names)
    return _ipc(rows.cast(schema)), _next(now, after, limit)


def sample_page(session: Session, dataset_id: str, after: int, limit: int, only: str = "") -> bytes:
    """The samples whose ordinal is in (after, after + limit] with their columns, as an Arrow IPC stream.

    `only` is a further condition on the samples, as `filtering.choose` returns it.
    """
    more = filtering.exported(session, dataset_id)
    rows = session.arrow(
        f"SELECT s.ordinal, s.sample_id, s.file_name, s.label{more.select} FROM samples s{more.joins} "
        f"WHERE s.dataset_id = ? AND s.ordinal > ? AND s.ordinal <= ? {only}",
        *(dataset_id, after, after + limit),
    ).sort_by("ordinal")
    texts = [(name, pa.string()) for name in ("sample_id", "file_name", "label")]
    schema = pa.schema([*texts, *more.fields])
    return _ipc(rows.drop_columns(["ordinal"]).rename_columns(schema.names).cast(schema))


def column_page(
    session: Session, dataset_id: str, kind: str, value: str, joins: str, *, after: int, limit: int
) -> bytes:
    """`sample_id` and `value` of the samples in (after, after + limit] that have one, as an Arrow IPC stream.

    `kind`, `value` and `joins` are those of `filtering.valued`.
    """
    rows = session.arrow(
        f"SELECT s.ordinal, s.sample_id, {value} AS value FROM samples s{joins} WHERE s.dataset_id = ? "
        "AND s.ordinal > ? AND s.ordinal <= ? "
        f"AND ({value}) IS NOT NULL",
        *(dataset_id, after, after + limit),
    ).sort_by("ordinal")
    schema = pa.schema([("sample_id", pa.string()), ("value", filtering.ARROW_TYPES[kind])])
    return _ipc(rows.drop_columns(["ordinal"]).cast(schema))


def values_page(
    session: Session, now: Current, column: tuple[str, str, str], after: int, limit: int
) -> tuple[bytes, int | None]:
    """`ordinal` and `value` of the samples in (after, after + limit] that have one, and the next `after`.

    `column` is an answer of `filtering.valued`.
    """
    kind, value, joins = column
    rows = session.arrow(
        f"SELECT s.ordinal, {value} AS value FROM samples s{joins} WHERE s.dataset_id = ? "
        f"AND s.ordinal > ? AND s.ordinal <= ? AND ({value}) IS NOT NULL",
        *(now.dataset_id, after, after + limit),
    )
    schema = pa.schema([("ordinal", pa.int64()), ("value", filtering.ARROW_TYPES[kind])])
    return _ipc(rows.cast(schema)), _next(now, after, limit)


def files_page(session: Session, now: Current, after: int, limit: int) -> tuple[bytes, int | None]:
    """`ordinal`, `pixels`, `bytes` and `mtime_ns` of the samples in (after, after + limit], and the next `after`.

    Pixels are null where no numbers `width` and `height` are known.
    """
    sides = [filtering.valued(session, now.dataset_id, side) for side in ("width", "height")]
    known = [side for side in sides if side is not None and side[0] == "number"]
    pixels = " * ".join(value for _, value, _ in known) if len(known) == 2 else "NULL"
    rows = session.arrow(
        f"SELECT s.ordinal, ({pixels})::DOUBLE AS pixels, s.size_bytes AS bytes, "
        "CASE WHEN contains(s.file_name, '://') THEN -1 ELSE s.mtime_ns END AS mtime_ns "
        f"FROM samples s{''.join(joins for _, _, joins in known)} "
        "WHERE s.dataset_id = ? AND s.ordinal > ? AND s.ordinal <= ?",
        *(now.dataset_id, after, after + limit),
    )
    return _ipc(rows), _next(now, after, limit)


def _next(now: Current, after: int, limit: int) -> int | None:
    """The ordinal after which the next page begins; None after the last sample."""
    return after + limit if after + limit < now.sample_count - 1 else None


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
