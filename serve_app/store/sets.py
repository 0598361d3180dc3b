"""The current sets of vectors: one row of `sets` for each, which a commit replaces."""

from dataclasses import dataclass

from serve_app.records import VectorSet
from serve_app.store.retired import retire
from serve_app.store.schema import vectors_table
from serve_app.store.session import Session

_COLUMNS = (
    "d.id, j.id, s.model_name, j.space_key, j.dimension, d.scan_no, d.sample_count, s.map_job_id, s.vector_count, "
    "s.placed_count FROM sets s JOIN datasets d ON d.id = s.dataset_id JOIN jobs j ON j.id = s.job_id"
)


@dataclass(frozen=True, slots=True)
class Current:
    """A current set: the job that made it, its model, space and dimension, the job of its map, and the kept counts.

    The counts are of the dataset's present samples: those that have a vector, and of these those that have a point.
    """

    dataset_id: str
    job_id: str
    model_name: str
    space_key: str
    dimension: int
    scan_no: int
    sample_count: int
    map_job_id: str | None
    vector_count: int
    placed_count: int

    @property
    def public(self) -> VectorSet:
        """What other processes need to know before they read pages."""
        return VectorSet(
            dataset_id=self.dataset_id,
            job_id=self.job_id,
            scan_no=self.scan_no,
            model_name=self.model_name,
            space_key=self.space_key,
            dimension=self.dimension,
            count=self.vector_count,
        )

    @property
    def table(self) -> str:
        """The table that holds the vectors, under the set's job."""
        return vectors_table(self.dimension)


def of_dataset(session: Session, dataset_id: str) -> list[Current]:
    """The dataset's current sets, the one made last first."""
    rows = session.q(f"SELECT {_COLUMNS} WHERE s.dataset_id = ? ORDER BY j.number DESC", dataset_id)
    return [Current(*row) for row in rows]


def current(session: Session, dataset_id: str) -> Current | None:
    """The dataset's current set, or None before its first successful job."""
    return next(iter(of_dataset(session, dataset_id)), None)


def replace(session: Session, dataset_id: str, *, model_name: str, job_id: str, count: int, placed: int) -> None:
    """Make the rows of a job the dataset's set, with its own points if there are any; the old set is retired."""
    retire_of(session, dataset_id)
    session.q(
        "INSERT INTO sets VALUES (?, ?, ?, ?, ?, ?)",
        *(dataset_id, model_name, job_id, job_id if placed else None, count, placed),
    )


def place(session: Session, now: Current, map_job_id: str, placed: int) -> None:
    """Make the points of a job the set's map; the old map is retired."""
    if now.map_job_id is not None:
        retire(session, "points", now.map_job_id)
    session.q("UPDATE sets SET map_job_id = ?, placed_count = ? WHERE job_id = ?", map_job_id, placed, now.job_id)


def retire_of(session: Session, dataset_id: str) -> None:
    """Retire the dataset's sets with their maps."""
    for old in of_dataset(session, dataset_id):
        retire(session, old.table, old.job_id)
        if old.map_job_id is not None:
            retire(session, "points", old.map_job_id)
        session.q("DELETE FROM sets WHERE job_id = ?", old.job_id)


def recount(session: Session, dataset_id: str) -> None:
    """Count anew how many of the dataset's samples have a vector and a point in each set: its samples have changed."""
    for now in of_dataset(session, dataset_id):
        vectors, points = (
            session.value(
                f"SELECT count(*) FROM {table} SEMI JOIN (FROM samples WHERE dataset_id = ?) s USING (sample_id) "
                "WHERE job_id = ?",
                *(dataset_id, job_id),
            )
            for table, job_id in ((now.table, now.job_id), ("points", now.map_job_id))
        )
        session.q("UPDATE sets SET vector_count = ?, placed_count = ? WHERE job_id = ?", vectors, points, now.job_id)
