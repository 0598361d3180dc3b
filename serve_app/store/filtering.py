"""Which columns a dataset has, and which of its samples a filter chooses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from serve_app.errors import InvalidFilter, NoEmbeddings
from serve_app.store import sets
from serve_app.store.schema import VALUE_TYPES, values_table
from serve_app.store.session import Session, quoted

if TYPE_CHECKING:  # sqlglot is loaded at the first filter
    from collections.abc import Sequence

    from serve_app.store.regions import Polygon
    from serve_app.store.where_nodes import Column

MAX_CHARACTERS = 5_000
"""A query string takes so many: percent-encoded they are 60 kB at most, and the HTTP parser allows 64 kB."""
_LAST = 2**62
FILTER_S = 20.0
"""The time that one filter may take."""

LISTED = {
    "sample_id": ("text", "s.sample_id"),
    "file_name": ("text", "s.file_name"),
    "label": ("text", "s.label"),
    "bytes": ("number", "CASE WHEN s.size_bytes >= 0 THEN s.size_bytes::DOUBLE END"),
    "split": (
        "text",
        "nullif(lower(regexp_extract(s.file_name, '(?i)(?:^|/)(train|val|valid|test)/', 1)), '')",
    ),
}
"""Type and SQL of the columns that follow from the listing; a stored `split` counts instead of the folders'."""
TAG = "tag"
ARROW_TYPES = {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_(), "time": pa.timestamp("us")}


@dataclass(frozen=True, slots=True)
class Stored:
    """A column whose values lie in the table of its type."""

    name: str
    type: str
    column_id: int
    origin: str

    @property
    def table(self) -> str:
        """The table that holds the values."""
        return values_table(self.type)


def stored(session: Session, dataset_id: str) -> list[Stored]:
    """The stored columns of a dataset, in the order in which they were added."""
    rows = session.q(
        "SELECT name, type, column_id, origin FROM dataset_columns WHERE dataset_id = ? ORDER BY column_id", dataset_id
    )
    return [Stored(*row) for row in rows]


def choose(
    session: Session,
    dataset_id: str,
    where: str | None,
    *,
    model: str | None = None,
    page: tuple[int, int] | None = None,
) -> str:
    """A condition on samples `s` that holds for those that a filter chooses; without a filter it is empty.

    The filter is executed here, once, and the condition reads its result, which belongs to this session. With `page`,
    it is executed for the ordinals after the first number up to the second: all pages of a dataset cost one filter.
    A region is one of the map of the set of `model`, or of the set made last.

    Raises:
        InvalidFilter: the text is no filter over the dataset's columns, it asks for a region of a map that is not
            there, or it takes longer than `FILTER_S`.
    """
    if where is None:
        return ""
    import duckdb

    from serve_app.store.where import condition

    columns = stored(session, dataset_id)
    found = condition(where, _filterable(columns, dataset_id))
    _bind_regions(session, dataset_id, model, found.regions)
    joins = "".join(_join(column) for column in columns if column.name in found.names)
    first, last = page or (-1, _LAST)
    try:
        with session.within(FILTER_S):
            ordinals = session.arrow(
                f"SELECT s.ordinal FROM samples s{joins} WHERE s.dataset_id = ? AND s.ordinal > ? AND s.ordinal <= ? "
                f"AND {found.sql}",
                *(dataset_id, first, last, *found.values),
            )
    except duckdb.InterruptException:
        raise InvalidFilter(f"0: the filter takes more than {FILTER_S:.0f} s; make it simpler") from None
    session.bind("chosen", ordinals)
    return "AND s.ordinal IN (SELECT ordinal FROM chosen)"


def map_of(session: Session, dataset_id: str, where: str | None, model: str | None) -> str:
    """The job of the map that a filter's regions are of; empty if it has no region, or there is no map.

    Pages of one filter belong together only if they have the same. A filter that has the word in a text counts as well.
    """
    current = sets.current(session, dataset_id, model) if where and "inside" in where.casefold() else None
    return "" if current is None else current.map_job_id or ""


def _bind_regions(session: Session, dataset_id: str, model: str | None, polygons: "Sequence[Polygon]") -> None:
    from serve_app.store.regions import enclosed
    from serve_app.store.where_nodes import REGION

    try:
        for n, polygon in enumerate(polygons):
            session.bind(REGION.format(n), enclosed(session, dataset_id, polygon, model))
    except NoEmbeddings:
        raise InvalidFilter("0: inside(…) asks for a region of the map, and there is no map yet") from None


@dataclass(frozen=True, slots=True)
class Exported:
    """Parts of a SELECT over samples `s`: the columns that an export adds, the joins that they need, their types."""

    select: str
    joins: str
    fields: list[tuple[str, pa.DataType]]


def exported(session: Session, dataset_id: str) -> Exported:
    """The stored columns of a dataset, and `tag` (a list of texts) where it has tags, as parts of a SELECT."""
    columns = stored(session, dataset_id)
    joins = "".join(_join(column) for column in columns)
    select = "".join(f", v{column.column_id}.value" for column in columns)
    fields = [(column.name, ARROW_TYPES[column.type]) for column in columns]
    if session.row("SELECT 1 FROM tags WHERE dataset_id = ? LIMIT 1", dataset_id):
        joins += _join_tags(dataset_id, "list(tag ORDER BY tag)")
        select += ", t.value"
        fields.append((TAG, pa.list_(pa.string())))
    return Exported(select, joins, fields)


def valued(session: Session, dataset_id: str, name: str) -> tuple[str, str, str] | None:
    """Type, SQL over samples `s`, and joins of one column, by name; None where there is none of the name.

    The tags of a sample are one text, by name and parted by commas.
    """
    column = next((c for c in stored(session, dataset_id) if c.name.casefold() == name.casefold()), None)
    if column is not None:
        return column.type, f"v{column.column_id}.value", _join(column)
    if name.casefold() == TAG:
        return "text", "t.value", _join_tags(dataset_id, "string_agg(tag, ', ' ORDER BY tag)")
    listed = LISTED.get(name.casefold())
    return None if listed is None else (*listed, "")


def require_valued(session: Session, dataset_id: str, name: str) -> tuple[str, str, str]:
    """What `valued` returns; a name that is no column is the mistake that it would be in a filter.

    Raises:
        InvalidFilter: the dataset has no column of the name.
    """
    found = valued(session, dataset_id, name)
    if found is None:
        from serve_app.store.where import condition

        word = name if name.isidentifier() else '"' + name.replace('"', '""') + '"'
        condition(f"{word} IS NULL", _filterable(stored(session, dataset_id), dataset_id))
        raise InvalidFilter(f"0: there is no column {name[:100]!r}")
    return found


def _join(column: Stored) -> str:
    alias = f"v{column.column_id}"
    return (
        f" LEFT JOIN {column.table} {alias} ON {alias}.column_id = {column.column_id} "
        f"AND {alias}.sample_id = s.sample_id"
    )


def _join_tags(dataset_id: str, aggregate: str) -> str:
    return (
        f" LEFT JOIN (SELECT sample_id, {aggregate} AS value FROM tags WHERE dataset_id = {quoted(dataset_id)} "
        "GROUP BY sample_id) t ON t.sample_id = s.sample_id"
    )


def forget(session: Session, dataset_id: str) -> None:
    """Delete the columns and tags of a dataset."""
    for type_name in VALUE_TYPES:
        session.q(
            f"DELETE FROM {values_table(type_name)} WHERE column_id IN "
            "(SELECT column_id FROM dataset_columns WHERE dataset_id = ?)",
            dataset_id,
        )
    session.q("DELETE FROM dataset_columns WHERE dataset_id = ?", dataset_id)
    session.q("DELETE FROM tags WHERE dataset_id = ?", dataset_id)


def _filterable(columns: list[Stored], dataset_id: str) -> "dict[str, Column]":
    from serve_app.store.where_nodes import Column

    own = {column.name: Column(column.name, column.type, f"v{column.column_id}.value") for column in columns}  # type: ignore[arg-type]
    taken = {name.casefold() for name in own}
    listed = {name: Column(name, kind, sql) for name, (kind, sql) in LISTED.items() if name not in taken}  # type: ignore[arg-type]
    tag = Column(TAG, "tag", "s.sample_id IN (SELECT sample_id FROM tags WHERE dataset_id = ? AND {})", (dataset_id,))
    return listed | {TAG: tag} | own
