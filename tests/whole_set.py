"""A whole set of vectors in memory, put together from the store's pages: what small tests look at."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from serve_app.errors import Conflict
from serve_app.records import VectorSet
from serve_app.store.vectors import Vectors

PAGE_ROWS = 1000


@dataclass(frozen=True)
class WholeSet:
    """The vectors in sample order; `points` is None before a reduction, and NaN where one sample has none."""

    described: VectorSet
    sample_ids: list
    file_names: list
    labels: list
    content_hashes: list
    vectors: np.ndarray
    points: np.ndarray | None

    def __getattr__(self, name):
        return getattr(self.described, name)  # its job, model and space


async def read(writer, dataset_id):
    """Ask any `services.Writer`."""
    reading = _reading(dataset_id)
    method, arguments = next(reading)
    while True:
        try:
            answer = await writer.ask(method, *arguments.pop("args"), **arguments)
        except Conflict:
            reading = _reading(dataset_id)
            method, arguments = next(reading)
            continue
        try:
            method, arguments = reading.send(answer)
        except StopIteration as end:
            return end.value


def read_now(vectors, dataset_id, model=None):
    """Ask the store's part in this process for the set of a model, or the one made last."""
    while True:
        reading = _reading(dataset_id, model)
        try:
            method, arguments = next(reading)
            while True:
                args = arguments.pop("args")
                method, arguments = reading.send(method(vectors, *args, **arguments))
        except StopIteration as end:
            return end.value
        except Conflict:
            continue


def _reading(dataset_id, model=None):
    """The calls, one after another; each is answered before the next."""
    described = yield Vectors.current, {"args": (dataset_id, model)}
    exported, after = [], -1
    while after is not None:
        asked = {"args": (dataset_id,), "version": described.version, "after": after, "limit": PAGE_ROWS}
        page, after = yield Vectors.export, asked
        exported.append(pa.ipc.open_stream(page).read_all())
    hashes, after = {}, -1
    while after is not None:
        asked = {"args": (dataset_id,), "version": described.version, "after": after, "limit": PAGE_ROWS}
        page, after = yield Vectors.rows, asked
        rows = pa.ipc.open_stream(page).read_all()
        hashes |= dict(zip(rows.column("sample_id").to_pylist(), rows.column("content_hash").to_pylist(), strict=True))
    table = pa.concat_tables(exported)
    points = np.stack([table.column(axis).to_numpy() for axis in ("x", "y")], axis=1).astype(np.float64)
    ids = table.column("sample_id").to_pylist()
    return WholeSet(
        described=described,
        sample_ids=ids,
        file_names=table.column("file_name").to_pylist(),
        labels=table.column("label").to_pylist(),
        content_hashes=[hashes[sample_id] for sample_id in ids],
        vectors=np.array(table.column("vector").to_pylist(), np.float32).reshape(-1, described.dimension),
        points=None if np.isnan(points).all() else points,
    )
