"""A Parquet or Arrow file of vectors made elsewhere; its rows are read and checked block by block.

This module knows files and columns. The store knows which samples exist.
"""

from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serve_app.errors import InvalidRequest
from serve_app.jobs.arrow_messages import MAGIC
from serve_app.jobs.table_file import NAME, TableFile, open_arrow_file, open_arrow_stream, open_parquet
from serve_app.records import ImportedRows, Skip, VectorArray
from serve_app.sources.parquet_table import refusing, require_short
from serve_app.store.readout import SPACE_KEY
from serve_app.store.schema import MAX_DIMENSION, ROW_GROUP_ROWS
from serve_app.store.staging import MIN_SQUARED_NORM, usable

MODEL_NAME = "model_name"
BLOCK_ROWS = 2 * ROW_GROUP_ROWS
"""The rows of a block; full row groups go straight to the database's file. Wide vectors have one in a block."""
BLOCK_BYTES = 16 * 2**20

_COLUMNS = frozenset({"sample_id", "file_name", "vector", "x", "y", MODEL_NAME})
_FORMATS = "Parquet or Arrow"


class VectorFile:
    """One open file: its metadata and its rows.

    A file has the columns `sample_id` or `file_name` (`sample_id` counts if both exist), `vector` (a list of float32
    or float64, of fixed or variable size), and optionally `x` together with `y`.

    Args:
        file: an open file on disk; it must stay open while the object is in use.

    Raises:
        InvalidRequest: the file is not Parquet or Arrow, or would take too much memory, or a column is missing or has
            a wrong type.
        Unavailable: there is not enough memory.
    """

    def __init__(self, file: BinaryIO) -> None:
        file.flush()
        if file.seek(0, 2) == 0:
            raise InvalidRequest("the file is empty")
        with refusing("the file", _FORMATS):
            schema, self.total, self._batches = _open(file)
            self.key_column = _key_column(schema)
            self._has_points = _check_columns(schema)
            self.space_key = _metadata(schema, SPACE_KEY)
            first = next((batch for batch in self._batches() if batch.num_rows), None)
            if first is None:
                raise InvalidRequest("the file has no rows")
            first.validate(full=True)
            first = first.slice(0, BLOCK_ROWS)
            self.dimension = _dimension(first.column("vector"))
            self.model_name = _metadata(schema, MODEL_NAME) or _first_text(first, MODEL_NAME)

    def blocks(self) -> Iterator[ImportedRows]:
        """All rows, in blocks of at most `BLOCK_ROWS`.

        Raises:
            InvalidRequest: the file is damaged, or has a key longer than any name.
            Unavailable: there is not enough memory.
        """
        size = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * self.dimension)))
        size -= size % ROW_GROUP_ROWS if size > ROW_GROUP_ROWS else 0
        with refusing("the file", _FORMATS):
            for batch in self._batches():
                batch.validate(full=True)  # a damaged Arrow file may hold offsets that point outside its buffers
                for start in range(0, batch.num_rows, size):
                    yield self._block(batch.slice(start, size))

    def _block(self, batch: pa.RecordBatch) -> ImportedRows:
        keys = _texts(batch.column(self.key_column)).to_pylist()
        column = batch.column("vector")
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        right = lengths == self.dimension
        vectors = _matrix(column.filter(pa.array(right)), self.dimension)
        points = self._points(batch)
        skips = [_skip(keys[row], _wrong_length(int(lengths[row]), self.dimension)) for row in np.flatnonzero(~right)]
        rows = np.flatnonzero(right)
        is_usable = usable(vectors) if len(vectors) else np.empty(0, bool)
        is_fine = is_usable & (np.fromiter(map(bool, keys), bool, len(keys)) & _are_points(points))[rows]
        skips += [
            _skip(keys[rows[place]], _problem(keys[rows[place]], bool(is_usable[place]), vectors[place]))
            for place in np.flatnonzero(~is_fine)
        ]
        if not is_fine.all():
            rows, vectors = rows[is_fine], vectors[is_fine]
        return ImportedRows(self.key_column, [keys[row] for row in rows], vectors, points[rows], skips)

    def _points(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """(N, 2) points; a null coordinate becomes NaN."""
        if not self._has_points:
            return np.full((batch.num_rows, 2), np.nan)
        axes = [
            batch.column(axis).cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
            for axis in ("x", "y")
        ]
        return np.stack(axes, axis=1)


def _open(file: BinaryIO) -> TableFile:
    file.seek(0)
    magic = file.read(len(MAGIC))
    if magic.startswith(b"PAR1"):
        return open_parquet(file, _COLUMNS.__contains__, BLOCK_ROWS)
    return open_arrow_file(file) if magic == MAGIC else open_arrow_stream(file)


def _texts(column: pa.Array) -> pa.Array:
    """The keys as texts; a short file can repeat a long text often, so their lengths are checked first."""
    require_short(column, NAME)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string())


def _key_column(schema: pa.Schema) -> Literal["sample_id", "file_name"]:
    if "sample_id" in schema.names:
        return "sample_id"
    if "file_name" in schema.names:
        return "file_name"
    raise InvalidRequest("the file has neither a column sample_id nor a column file_name")


def _check_columns(schema: pa.Schema) -> bool:
    """Check the columns' types and return whether the file has points."""
    if repeated := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise InvalidRequest(f"the file has two columns {repeated[0][:100]!r}")
    key = schema.field(_key_column(schema)).type
    key = key.value_type if pa.types.is_dictionary(key) else key
    if not (pa.types.is_integer(key) or pa.types.is_string(key) or pa.types.is_large_string(key) or _is_view(key)):
        raise InvalidRequest(f"the column {_key_column(schema)} is of type {key}; it must be text or whole numbers")
    if "vector" not in schema.names:
        raise InvalidRequest("the file has no column vector")
    vector = schema.field("vector").type
    is_list = pa.types.is_list(vector) or pa.types.is_large_list(vector) or pa.types.is_fixed_size_list(vector)
    if not is_list or vector.value_type not in (pa.float32(), pa.float64()):
        raise InvalidRequest(f"the column vector is of type {vector}; it must be a list of float32 or float64")
    axes = [name for name in ("x", "y") if name in schema.names]
    if len(axes) == 1:
        raise InvalidRequest(f"the file has a column {axes[0]} but not the other coordinate")
    for axis in axes:
        if not pa.types.is_floating(schema.field(axis).type):
            raise InvalidRequest(f"the column {axis} is of type {schema.field(axis).type}; it must be floating point")
    return bool(axes)


def _is_view(kind: pa.DataType) -> bool:
    return bool(kind == pa.string_view())


def _metadata(schema: pa.Schema, name: str) -> str | None:
    value = (schema.metadata or {}).get(name.encode())
    return value.decode(errors="replace") if value else None


def _first_text(batch: pa.RecordBatch, name: str) -> str | None:
    if name not in batch.schema.names:
        return None
    require_short(batch.column(name), NAME)
    return next((str(value) for value in batch.column(name).to_pylist() if value), None)


def _dimension(column: pa.Array) -> int:
    """The length of the lists; if it varies, the most frequent length in these rows."""
    if pa.types.is_fixed_size_list(column.type):
        dimension = int(column.type.list_size)
    else:
        lengths = Counter(pc.list_value_length(column).drop_null().to_pylist())
        dimension = max(lengths, key=lambda length: lengths[length], default=0)
    if not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidRequest(f"vectors of dimension {dimension} cannot be stored; the limit is {MAX_DIMENSION:,}")
    return dimension


def _matrix(column: pa.Array, dimension: int) -> VectorArray:
    """An (N, D) float32 array of N lists of equal length; null components become NaN, float64 is rounded."""
    flat = column.flatten().to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(flat, np.float32).reshape(-1, dimension)


def _wrong_length(length: int, dimension: int) -> tuple[str, str]:
    if length < 0:
        return "missing_vector", "the row has no vector"
    return "wrong_dimension", f"the vector has {length:,} numbers, those of this file have {dimension:,}"


def _skip(key: str | None, problem: tuple[str, str]) -> Skip:
    return Skip(key or "", key or "", *problem)


def _are_points(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether both coordinates are finite, or both absent."""
    return np.asarray(np.isnan(points).all(axis=1) | np.isfinite(points).all(axis=1), np.bool_)


def _problem(key: str | None, is_usable: bool, vector: VectorArray) -> tuple[str, str]:
    """The reason and detail why a row cannot be imported, if it has a vector of the right length."""
    if not key:
        return "unknown_sample", "the row names no sample"
    if not is_usable:
        if not np.isfinite(vector).all():
            return "nonfinite", "the vector holds a number that is not finite in float32"
        is_zero = float(np.square(vector, dtype=np.float64).sum()) <= MIN_SQUARED_NORM
        return ("zero", "the vector has no length") if is_zero else ("nonfinite", "the vector is too long for float32")
    return "bad_point", "x and y must both be finite, or both absent"
