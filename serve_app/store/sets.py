"""The current sets of vectors: one row of `sets` for each dataset and model, which a commit replaces."""

from dataclasses import dataclass

from serve_app.errors import NoEmbeddings
from serve_app.records import SetStatus, VectorSet
from serve_app.store import making
from serve_app.store.retired import retire
from serve_app.store.schema import vectors_table
from serve_app.store.session import Session

_COLUMNS = (
    "d.id, j.id, s.model_name, j.space_key, j.dimension, d.scan_no, d.sample_count, s.map_job_id, s.vector_count, "
    "s.placed_count, s.earlier_map_job_id FROM sets s JOIN datasets d ON d.id = s.dataset_id "
    "JOIN jobs j ON j.id = s.job_id"
)


@dataclass(frozen=True, slots=True)
class Current:
    """A current set: the job that made it, its model, space and dimension, the job of its map, and the kept counts.

    The counts are of the dataset's present samples: those that have a vector, and of these those that have a point.
    The earlier map is that of the set which this one replaced; it is kept until this one has a map.
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
    earlier_map_job_id: str | None

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
    def status(self) -> SetStatus:
        """What clients see of the set."""
        return SetStatus(
            model_name=self.model_name,
            space_key=self.space_key,
            dimension=self.dimension,
            embedding_count=self.vector_count,
            job_id=self.job_id,
            has_reduction=self.placed_count > 0,
        )

    @property
    def table(self) -> str:
        """The table that holds the vectors, under the set's job."""
        return vectors_table(self.dimension)


def of_dataset(session: Session, dataset_id: str) -> list[Current]:
    """The dataset's current sets, the one made last first."""
    rows = session.q(f"SELECT {_COLUMNS} WHERE s.dataset_id = ? ORDER BY j.number DESC", dataset_id)
    return [Current(*row) for row in rows]


def of_version(session: Session, dataset_id: str, version: str) -> Current | None:
    """The dataset's set of this version (`VectorSet.version`), None if it is no longer current."""
    return next((now for now in of_dataset(session, dataset_id) if now.public.version == version), None)


def current(session: Session, dataset_id: str, model: str | None = None) -> Current | None:
    """The dataset's set of this model, or the set made last if none is named; None if there is no such set."""
    return chosen(of_dataset(session, dataset_id), model)


def chosen(found: list[Current], model: str | None) -> Current | None:
    """The set of this model among a dataset's sets, or the first if none is named; None if there is no such set."""
    return next((now for now in found if model in (None, now.model_name)), None)


def require(session: Session, dataset_id: str, model: str | None = None) -> Current:
    """The set that `current` gives. Raises `NoEmbeddings`: there is none; the message names those that there are."""
    found = of_dataset(session, dataset_id)
    now = chosen(found, model)
    if now is None and found:
        there = ", ".join(repr(other.model_name) for other in found)
        raise NoEmbeddings(f"No embeddings of {model!r} found; the dataset has those of {there}.")
    if now is None:
        raise NoEmbeddings("No embeddings found. Generate embeddings first.")
    return now


def replace(session: Session, dataset_id: str, *, model_name: str, job_id: str, count: int, placed: int) -> None:
    """Make the rows of a job the dataset's set of a model, with its points if it has any; the old set is retired.

    The old map is kept where the new set is of the same space and kind of job and has no points.
    """
    earlier = None if placed else _map_to_keep(session, dataset_id, model_name, job_id)
    retire_of(session, dataset_id, model_name, kept_map=earlier)
    session.q(
        "INSERT INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)",
        *(dataset_id, model_name, job_id, job_id if placed else None, count, placed, earlier),
    )


def place(session: Session, now: Current, map_job_id: str, placed: int) -> None:
    """Make the points of a job the set's map; the old map, and the earlier one, are retired."""
    retire(session, "points", *_maps(now))
    session.q(
        "UPDATE sets SET map_job_id = ?, placed_count = ?, earlier_map_job_id = NULL WHERE job_id = ?",
        *(map_job_id, placed, now.job_id),
    )


def retire_of(session: Session, dataset_id: str, model: str | None = None, *, kept_map: str | None = None) -> None:
    """Retire the dataset's set of this model, or all of them if none is named, with their maps but `kept_map`."""
    for old in of_dataset(session, dataset_id):
        if model not in (None, old.model_name):
            continue
        retire(session, old.table, old.job_id)
        retire(session, "points", *(job_id for job_id in _maps(old) if job_id != kept_map))
        session.q("DELETE FROM sets WHERE job_id = ?", old.job_id)


def _maps(now: Current) -> list[str]:
    """The jobs whose points a set keeps, that of its map first."""
    return [job_id for job_id in (now.map_job_id, now.earlier_map_job_id) if job_id is not None]


def _map_to_keep(session: Session, dataset_id: str, model_name: str, job_id: str) -> str | None:
    """The reduction whose map the set of a job may go on with: of the same model and space, and with contents.

    The contents of an import are vectors and those of an embed job images, so neither finds its own in the other's map.
    """
    of_job = "SELECT kind, space_key FROM jobs WHERE id = ?"
    new = session.row(of_job, job_id)
    for old in of_dataset(session, dataset_id):
        if old.model_name == model_name and session.row(of_job, old.job_id) == new:
            return next((name for name in _maps(old) if making.of_job(session, name)), None)
    return None


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
