"""A Parquet or Arrow file of vectors made elsewhere; its rows are read and checked block by block.

This module knows files and columns. The store knows which samples exist.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from serve_app.errors import InvalidRequest
from serve_app.records import ImportedRows, Skip, VectorArray
from serve_app.store.readout import SPACE_KEY
from serve_app.store.schema import MAX_DIMENSION
from serve_app.store.staging import MIN_SQUARED_NORM, usable

MODEL_NAME = "model_name"
BLOCK_ROWS = 2048
BLOCK_BYTES = 8 * 2**20

Batches = Callable[[], Iterator[pa.RecordBatch]]


class VectorFile:
    """One open file: its metadata and its rows.

    A file has the columns `sample_id` or `file_name` (`sample_id` counts if both exist), `vector` (a list of float32
    or float64, of fixed or variable size), and optionally `x` together with `y`.

    Args:
        file: an open file on disk; it must stay open while the object is in use.

    Raises:
        InvalidRequest: the file is not Parquet or Arrow, or a column is missing or has a wrong type.
    """

    def __init__(self, file: BinaryIO) -> None:
        # Mapping keeps an Arrow file of any size on disk. The path /dev/fd also works for a file without a name.
        file.flush()
        if file.seek(0, 2) == 0:
            raise InvalidRequest("the file is empty")
        file.seek(0)
        magic = file.read(6)
        with _naming_trouble():
            source = pa.memory_map(f"/dev/fd/{file.fileno()}")
            schema, self.total, self._batches = _open(source, magic)
            self.key_column = _key_column(schema)
            self._has_points = _check_columns(schema)
            self.space_key = _metadata(schema, SPACE_KEY)
            first = next((batch for batch in self._batches() if batch.num_rows), None)
            if first is None:
                raise InvalidRequest("the file has no rows")
            first.validate(full=True)
            self.dimension = _dimension(first.column("vector"))
            self.model_name = _metadata(schema, MODEL_NAME) or _first_text(first, MODEL_NAME)

    def blocks(self) -> Iterator[ImportedRows]:
        """All rows, in blocks of at most `BLOCK_ROWS`.

        Raises:
            InvalidRequest: the file is damaged.
        """
        size = max(1, min(BLOCK_ROWS, BLOCK_BYTES // (4 * self.dimension)))
        with _naming_trouble():
            for batch in self._batches():
                batch.validate(full=True)  # a damaged Arrow file may hold offsets that point outside its buffers
                for start in range(0, batch.num_rows, size):
                    yield self._block(batch.slice(start, size))

    def _block(self, batch: pa.RecordBatch) -> ImportedRows:
        keys = batch.column(self.key_column).cast(pa.string()).to_pylist()
        column = batch.column("vector")
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        right = lengths == self.dimension
        vectors = _matrix(column.filter(pa.array(right)), self.dimension)
        points = self._points(batch)
        skips = [_skip(keys[row], _wrong_length(int(lengths[row]), self.dimension)) for row in np.flatnonzero(~right)]
        kept, keep = [], []
        good = usable(vectors) if len(vectors) else np.empty(0, bool)
        for position, row in enumerate(np.flatnonzero(right)):
            problem = _problem(keys[row], bool(good[position]), vectors[position], points[row])
            if problem is None:
                kept.append(int(row))
                keep.append(position)
            else:
                skips.append(_skip(keys[row], problem))
        return ImportedRows(self.key_column, [keys[row] for row in kept], vectors[keep], points[kept], skips)

    def _points(self, batch: pa.RecordBatch) -> NDArray[np.float64]:
        """(N, 2) points; a null coordinate becomes NaN."""
        if not self._has_points:
            return np.full((batch.num_rows, 2), np.nan)
        axes = [
            batch.column(axis).cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
            for axis in ("x", "y")
        ]
        return np.stack(axes, axis=1)


@contextmanager
def _naming_trouble() -> Iterator[None]:
    """Turn pyarrow's errors about a damaged file into `InvalidRequest`."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InvalidRequest(f"the file cannot be read as Parquet or Arrow: {reason}") from error


def _open(source: pa.NativeFile, magic: bytes) -> tuple[pa.Schema, int, Batches]:
    """The schema, the number of rows, and a function that reads the rows from the start."""
    if magic.startswith(b"PAR1"):
        parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
        wanted = {"sample_id", "file_name", "vector", "x", "y", MODEL_NAME}
        columns = [name for name in parquet.schema_arrow.names if name in wanted]
        return (
            parquet.schema_arrow,
            parquet.metadata.num_rows,
            lambda: parquet.iter_batches(batch_size=BLOCK_ROWS, columns=columns),
        )
    if magic.startswith(b"ARROW1"):
        table = pa.ipc.open_file(source)
        numbers = range(table.num_record_batches)
        total = sum(table.get_batch(number).num_rows for number in numbers)
        return table.schema, total, lambda: (table.get_batch(number) for number in numbers)

    def stream() -> pa.RecordBatchStreamReader:
        source.seek(0)
        return pa.ipc.open_stream(source)

    return stream().schema, sum(batch.num_rows for batch in stream()), lambda: iter(stream())


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


def _problem(
    key: str | None, is_usable: bool, vector: VectorArray, point: NDArray[np.float64]
) -> tuple[str, str] | None:
    """The reason and detail why a row cannot be imported, or None if it can."""
    if not key:
        return "unknown_sample", "the row names no sample"
    if not is_usable:
        if not np.isfinite(vector).all():
            return "nonfinite", "the vector holds a number that is not finite in float32"
        is_zero = float(np.square(vector, dtype=np.float64).sum()) <= MIN_SQUARED_NORM
        return ("zero", "the vector has no length") if is_zero else ("nonfinite", "the vector is too long for float32")
    if np.isnan(point).all() or np.isfinite(point).all():
        return None
    return "bad_point", "x and y must both be finite, or both absent"
