"""Reads what the store knows of a set's samples, page by page, into arrays beside the rows of the set.

Letters for shapes: N rows of the set.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.search.finding_records import Value
from serve_app.search.set_file import SetFile
from serve_app.services import Writer
from serve_app.store.vectors import Vectors

PAGE_ROWS = 50_000


class Values(NamedTuple):
    """The distinct values of a column, and (N,) positions in them, -1 for a sample without a value."""

    distinct: list[Value]
    codes: NDArray[np.int32]


async def values(writer: Writer, dataset_id: str, found: SetFile, column: str) -> Values:
    """A column's values for the rows of a set.

    Raises:
        InvalidFilter: the dataset has no such column.
        Conflict: the set or the samples have changed.
    """
    if column.casefold() == "label":  # the set's file has it
        return of_labels(found)
    table = await _table(writer, Vectors.values, dataset_id, found, column=column)
    encoded = table.column("value").combine_chunks().dictionary_encode()
    return Values(encoded.dictionary.to_pylist(), _of_rows(found, table, encoded.indices.to_numpy(), -1))


def of_labels(found: SetFile) -> Values:
    """The labels of a set's samples."""
    encoded = found.rows.column("label").combine_chunks().dictionary_encode()
    return Values(encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy())


class Files(NamedTuple):
    """What is known of files: (N,) pixels and bytes, 0 if unknown, and times in ns, the largest number if unknown."""

    pixels: NDArray[np.float64]
    bytes: NDArray[np.int64]
    times: NDArray[np.int64]


async def files(writer: Writer, dataset_id: str, found: SetFile) -> Files:
    """What is known of the files of a set's rows. Raises `Conflict`: the set or the samples have changed."""
    table = await _table(writer, Vectors.files, dataset_id, found)
    pixels, n_bytes, times = (
        table.column("pixels").fill_null(0.0).to_numpy(),
        np.maximum(table.column("bytes").to_numpy(), 0),
        table.column("mtime_ns").to_numpy(),
    )
    never = np.iinfo(np.int64).max
    return Files(
        _of_rows(found, table, pixels, 0.0),
        _of_rows(found, table, n_bytes, 0),
        _of_rows(found, table, np.where(times < 0, never, times), never),
    )


async def _table(writer: Writer, method: Any, dataset_id: str, found: SetFile, **more: str) -> pa.Table:
    """All pages of a method of `Vectors`, of this version."""
    pages: list[pa.Table] = []
    after: int | None = -1
    while after is not None:
        page, after = await writer.ask(method, dataset_id, version=found.version, after=after, limit=PAGE_ROWS, **more)
        pages.append(pa.ipc.open_stream(page).read_all())
    return pa.concat_tables(pages)


def _of_rows(found: SetFile, table: pa.Table, given: NDArray[Any], unknown: float) -> NDArray[Any]:
    """The given values of the table's ordinals, for the rows of the set."""
    ordinals, wanted = table.column("ordinal").to_numpy(), found.rows.column("ordinal").to_numpy()
    values = np.full(1 + max(ordinals.max(initial=0), wanted.max(initial=0)), unknown, given.dtype)
    values[ordinals] = given
    chosen: NDArray[Any] = values[wanted]
    return chosen
