"""Tags: words that people put on samples. They are kept by sample id, so they survive rescans and new vectors."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from serve_app.errors import InvalidRequest
from serve_app.store import filtering, regions
from serve_app.store.column_records import TagChange, ValueCount
from serve_app.store.datasets import require_dataset
from serve_app.store.methods import write
from serve_app.store.session import Session

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database

_CHOSEN = "SELECT sample_id FROM samples s WHERE dataset_id = ?"


@dataclass(frozen=True, slots=True)
class SampleChoice:
    """Samples by a filter, by their ids, by a polygon on the map, or what several of these share.

    The map is that of the set of `model`, or of the set made last.
    """

    where: str | None = None
    sample_ids: list[str] | None = None
    polygon: regions.Polygon | None = None
    model: str | None = None

    @property
    def says_nothing(self) -> bool:
        """Whether no part is given."""
        return self.where is None and self.sample_ids is None and self.polygon is None


class Tags:
    """SQL over `tags`."""

    def __init__(self, database: "Database") -> None:
        self._database = database

    @write
    def add(self, dataset_id: str, tag: str, choice: SampleChoice) -> TagChange:
        """Put a tag on the chosen samples; those that have it keep it, so the call is safe to repeat.

        Raises:
            DatasetNotFound: no such dataset.
            InvalidRequest: nothing says which samples.
            InvalidFilter: `where` is no filter over the dataset's columns.
            NoEmbeddings: there is a polygon, and no map of this set.
        """
        if choice.says_nothing:
            raise InvalidRequest("say which samples: where, sample_ids or polygon")
        with self._database.transaction() as session:
            chosen, selected = _choose(session, dataset_id, choice)
            changed = session.value(
                f"INSERT INTO tags SELECT ?, ?, sample_id FROM ({chosen}) ANTI JOIN "
                "(FROM tags WHERE dataset_id = ? AND tag = ?) t USING (sample_id)",
                *(dataset_id, tag, dataset_id, dataset_id, tag),
            )
        return TagChange(changed=int(changed), selected=selected)

    @write
    def remove(self, dataset_id: str, tag: str, choice: SampleChoice) -> TagChange:
        """Take a tag off the chosen samples, or off every sample if nothing says which. Raises as `add` does."""
        with self._database.transaction() as session:
            if choice.says_nothing:
                require_dataset(session, dataset_id)
                changed = session.value("DELETE FROM tags WHERE dataset_id = ? AND tag = ?", dataset_id, tag)
                return TagChange(changed=int(changed), selected=int(changed))
            chosen, selected = _choose(session, dataset_id, choice)
            changed = session.value(
                f"DELETE FROM tags WHERE dataset_id = ? AND tag = ? AND sample_id IN ({chosen})",
                *(dataset_id, tag, dataset_id),
            )
        return TagChange(changed=int(changed), selected=selected)

    def all(self, dataset_id: str) -> list[ValueCount]:
        """Every tag and the number of samples that have it, by name. Raises `DatasetNotFound`."""
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            rows = session.q(
                "SELECT tag, count(*) FROM tags SEMI JOIN samples USING (dataset_id, sample_id) WHERE dataset_id = ? "
                "GROUP BY tag ORDER BY tag",
                dataset_id,
            )
        return [ValueCount(*row) for row in rows]


def _choose(session: Session, dataset_id: str, choice: SampleChoice) -> tuple[str, int]:
    """A SELECT of the chosen sample ids, which takes the dataset's id, and their number."""
    require_dataset(session, dataset_id)
    sql = f"{_CHOSEN} {filtering.choose(session, dataset_id, choice.where, model=choice.model)}"
    if choice.sample_ids is not None:
        session.bind("named", pa.table({"sample_id": pa.array(choice.sample_ids, pa.string())}))
        sql += " AND s.sample_id IN (SELECT sample_id FROM named)"
    if choice.polygon is not None:
        session.bind("enclosed", regions.enclosed(session, dataset_id, choice.polygon, choice.model))
        sql += " AND s.sample_id IN (SELECT sample_id FROM enclosed)"
    return sql, int(session.value(f"SELECT count(*) FROM ({sql})", dataset_id))
