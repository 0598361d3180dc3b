"""Reads a dataset's current vectors and map: all at once, or page by page as Arrow IPC."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import Conflict
from serve_app.records import VectorSet
from serve_app.store.methods import parse_cursor
from serve_app.store.schema import embeddings_table
from serve_app.store.session import Session

_OF_SAMPLES = "e JOIN samples s USING (dataset_id, sample_id) WHERE e.dataset_id = ?"

SPACE_KEY = "space_key"
"""The key of an export's schema metadata that holds the vectors' space."""

_POINTS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("file_name", pa.string()),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Current:
    """The job that made a dataset's current vectors, their model, space and dimension, and the kept counts.

    The counts are of the dataset's present samples: those that have a vector, and of these those that have a point.
    """

    dataset_id: str
    job_id: str
    model_name: str
    space_key: str
    dimension: int
    scan_no: int
    vector_count: int
    placed_count: int

    @property
    def version(self) -> str:
        """A text that changes whenever the vectors or the samples change; no text is used twice."""
        return f"{self.job_id}, scan {self.scan_no}"

    @property
    def table(self) -> str:
        """The table that holds the vectors."""
        return embeddings_table(self.dimension)


def current(session: Session, dataset_id: str) -> Current | None:
    """The dataset's current vectors, or None before its first successful job."""
    row = session.row(
        "SELECT d.id, j.id, j.model_name, j.space_key, j.dimension, d.scan_no, d.vector_count, d.placed_count "
        "FROM datasets d JOIN jobs j ON j.id = d.vectors_job_id WHERE d.id = ?",
        dataset_id,
    )
    return None if row is None else Current(*row)


def sample_ids(session: Session, now: Current) -> pa.ChunkedArray:
    """The ids of the dataset's samples that have a vector, in sample order."""
    return session.arrow(
        f"SELECT s.sample_id FROM {now.table} {_OF_SAMPLES} ORDER BY s.ordinal", now.dataset_id
    ).column("sample_id")


def vector_set(session: Session, now: Current) -> VectorSet:
    """All vectors of the dataset's samples, in sample order."""
    # Numpy sorts the rows, because DuckDB would carry every vector through its sort.
    rows = session.arrow(
        "SELECT s.ordinal, e.sample_id, s.file_name, s.label, e.content_hash, e.vector, e.x, e.y "
        f"FROM {now.table} {_OF_SAMPLES}",
        now.dataset_id,
    )
    order = np.argsort(rows.column("ordinal").to_numpy())
    narrow = rows.drop_columns(["vector"]).take(pa.array(order))
    points = np.stack([narrow.column(axis).to_numpy() for axis in ("x", "y")], axis=1).astype(np.float64)
    return VectorSet(
        version=now.version,
        job_id=now.job_id,
        model_name=now.model_name,
        space_key=now.space_key,
        sample_ids=narrow.column("sample_id").to_pylist(),
        file_names=narrow.column("file_name").to_pylist(),
        labels=narrow.column("label").to_pylist(),
        content_hashes=narrow.column("content_hash").to_pylist(),
        vectors=_in_order(rows.column("vector"), order, now.dimension),
        points=None if np.isnan(points).all() else points,
    )


def points_page(session: Session, now: Current, after: str | None, limit: int) -> tuple[bytes, str | None]:
    """A page of the map as an Arrow IPC stream, and the cursor of the next page, which also names the map's version.

    Raises:
        Conflict: the cursor belongs to another version of the map.
    """
    this_map = _map_version(session, now)
    start = -1
    if after is not None:
        ordinal, _, version = after.partition(" of ")
        if version != this_map:
            raise Conflict("The map was made anew while it was read; ask for it again.")
        start = parse_cursor(ordinal)
    rows = session.arrow(
        f"SELECT s.ordinal, e.sample_id, e.x, e.y, s.file_name, s.label FROM {now.table} {_OF_SAMPLES} "
        "AND e.x IS NOT NULL AND s.ordinal > ? ORDER BY s.ordinal LIMIT ?",
        *(now.dataset_id, start, limit + 1),
    )
    page = rows.slice(0, limit)
    more = f"{page.column('ordinal')[-1].as_py()} of {this_map}" if rows.num_rows > limit else None
    return _ipc(page.drop_columns(["ordinal"]).cast(_POINTS)), more


def no_points() -> bytes:
    """The map of a dataset without vectors, as an Arrow IPC stream."""
    return _ipc(_POINTS.empty_table())


def _map_version(session: Session, now: Current) -> str:
    """A text that changes whenever the vectors, their points or the samples change."""
    placed_by = session.value(
        "SELECT max(number) FROM jobs WHERE dataset_id = ? AND kind = 'reduce' AND status = 'complete' "
        "AND vectors_job_id = ?",
        *(now.dataset_id, now.job_id),
    )
    return f"{now.version}, map {placed_by or 0}"


def export_page(session: Session, now: Current, after: int, limit: int) -> tuple[bytes, int | None]:
    """A page of the dataset with its vectors as an Arrow IPC stream, and the ordinal after which the next begins."""
    ordinals = session.arrow(
        f"SELECT s.ordinal FROM {now.table} {_OF_SAMPLES} AND s.ordinal > ? ORDER BY s.ordinal LIMIT ?",
        *(now.dataset_id, after, limit + 1),
    ).column("ordinal")
    page = ordinals.slice(0, limit).to_pylist()
    last = page[-1] if page else after
    rows = session.arrow(
        f"SELECT s.ordinal, e.sample_id, s.file_name, s.label, e.model_name, e.vector, e.x, e.y FROM {now.table} "
        f"{_OF_SAMPLES} AND s.ordinal > ? AND s.ordinal <= ?",
        *(now.dataset_id, after, last),
    ).sort_by("ordinal")
    schema = pa.schema(
        [
            ("sample_id", pa.string()),
            ("file_name", pa.string()),
            ("label", pa.string()),
            ("model_name", pa.string()),
            ("vector", pa.list_(pa.float32(), now.dimension)),
            ("x", pa.float64()),
            ("y", pa.float64()),
        ],
        metadata={SPACE_KEY: now.space_key},
    )
    return _ipc(rows.drop_columns(["ordinal"]).cast(schema)), last if len(ordinals) > limit else None


def _in_order(column: pa.ChunkedArray, order: NDArray[np.int64], dimension: int) -> NDArray[np.float32]:
    """An (N, D) float32 array whose row i is row order[i] of the column; it is the only copy of the column."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    vectors = np.empty((len(order), dimension), np.float32)
    start = 0
    for chunk in column.chunks:
        vectors[rank[start : start + len(chunk)]] = chunk.flatten().to_numpy().reshape(-1, dimension)
        start += len(chunk)
    return vectors


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
