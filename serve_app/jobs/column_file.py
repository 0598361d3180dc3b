"""A CSV, Parquet or Arrow file of columns: read, typed and checked, within a limit of memory.

This module knows files and columns. The store knows which samples exist.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from serve_app.errors import InvalidRequest
from serve_app.jobs.arrow_messages import MAGIC
from serve_app.jobs.table_file import open_arrow_file, open_arrow_stream, open_parquet
from serve_app.sources.parquet_table import is_text, refusing, text_lengths
from serve_app.store.column_rows import FIXED, MAX_COLUMNS, GivenColumns
from serve_app.store.filtering import TAG

MAX_BYTES = 256 * 2**20
"""The memory that the rows may take; the whole file is one transaction of the writer."""
MAX_TEXT = 4096
MAX_NAME = 100
BATCH_ROWS = 10_000
TAG_SEPARATOR = "/"
"""The character that no tag has."""
TAG_PATTERN = r"^[^\x00-\x1f\x7f/]{1,100}$"
_OF_VECTORS = frozenset({"vector", "x", "y", "model_name"})
_CELL_BYTES = 8
"""A number or a time takes this much, and the place of a text not more."""
EXACT = 2**53
"""A double holds every whole number up to this."""


@dataclass(frozen=True, slots=True)
class ColumnTable:
    """The content of a file, as `Columns.put` takes it, and the names of the columns that it leaves out."""

    given: GivenColumns
    ignored: list[str]


def read(file: BinaryIO) -> ColumnTable:
    """Read a whole file.

    Raises:
        InvalidRequest: the file cannot be read or is too large, or a column is missing, or has a name, a type or a
            value that cannot be stored.
        Unavailable: there is not enough memory.
    """
    file.flush()
    if file.seek(0, 2) == 0:
        raise InvalidRequest("the file is empty")
    file.seek(0)
    magic = file.read(len(MAGIC))
    file.seek(0)
    with refusing("the file", "CSV, Parquet or Arrow"):
        return of_table(pa.Table.from_batches(*_bounded(_batches(file, magic))))


def of_table(rows: pa.Table) -> ColumnTable:
    """Type and check a table with `sample_id` or `file_name`; listings pass the columns of a source through here.

    Raises:
        InvalidRequest: as for `read`.
    """
    key_column = next((name for name in ("sample_id", "file_name") if name in rows.column_names), None)
    if key_column is None:
        raise InvalidRequest("the file has neither a column sample_id nor file_name")
    ignored = [name for name in rows.column_names if name.casefold() in FIXED and name not in (key_column, TAG)]
    names = [name for name in rows.column_names if name not in (key_column, TAG, *ignored)]
    has_tags = TAG in rows.column_names
    if names or not has_tags:
        _check_names(names)
    typed = [_typed(name, rows.column(name)) for name in names]
    key = rows.column(key_column).cast(pa.string())
    tags = {TAG: _tags(rows.column(TAG))} if has_tags else {}
    table = pa.table({"key": key, **{f"c{place}": values for place, (_, values) in enumerate(typed)}, **tags})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    types = {name: kind for name, (kind, _) in zip(names, typed, strict=True)}
    given = GivenColumns(key_column, types, sink.getvalue().to_pybytes(), has_tags)
    return ColumnTable(given, [name for name in ignored if name != "sample_id"])


def _tags(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of tags; a text holds several between slashes, as an export to CSV writes them."""
    kind = values.type
    if is_text(kind) or pa.types.is_null(kind):
        values = pc.split_pattern(values.cast(pa.string()), TAG_SEPARATOR)
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not is_text(kind.value_type):
        raise InvalidRequest(f"the column {TAG!r} is {kind}; it holds lists of texts, or texts with tags between '/'")
    values = values.cast(pa.list_(pa.string()))
    flat = pc.list_flatten(values).drop_null()
    wrong = flat.filter(pc.invert(pc.match_substring_regex(flat, TAG_PATTERN)))
    if len(wrong):
        raise InvalidRequest(f"{wrong[0].as_py()[:MAX_NAME]!r} is no tag: use 1 to 100 characters, and no '/'")
    return values


def _check_names(names: list[str]) -> None:
    if not names:
        raise InvalidRequest("the file has no column to add besides those that follow from the listing")
    _check_number(len(names))
    if len({name.casefold() for name in names}) < len(names):
        raise InvalidRequest("two columns have the same name but for upper and lower case")
    for name in names:
        if not is_name(name):
            raise InvalidRequest(f"{name[:MAX_NAME]!r} is no name: use at most {MAX_NAME} printable characters")


def is_name(name: str) -> bool:
    """Whether a column can have this name."""
    return bool(name.strip()) and len(name) <= MAX_NAME and name.isprintable()


def require_free_name(name: str) -> None:
    """Return if a new column can have this name. Raises `InvalidRequest`."""
    if not is_name(name):
        raise InvalidRequest(f"{name[:MAX_NAME]!r} is no name: use at most {MAX_NAME} printable characters")
    if name.casefold() in FIXED:
        raise InvalidRequest(f"the name {name!r} is taken by the listing, tags or vectors")


def _check_number(n_columns: int) -> None:
    if n_columns > MAX_COLUMNS:
        raise InvalidRequest(f"the file has {n_columns:,} columns; the limit is {MAX_COLUMNS}")


def _typed(name: str, values: pa.ChunkedArray) -> tuple[str, pa.ChunkedArray]:
    """The column's type and its values in that type's Arrow form."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_boolean(kind):
        return "boolean", values
    if pa.types.is_integer(kind):
        if (pc.min_max(values)["max"].as_py() or 0) > EXACT or (pc.min_max(values)["min"].as_py() or 0) < -EXACT:
            raise InvalidRequest(f"column {name!r} has whole numbers over 2^53, which lose digits: write them as text")
        return "number", values.cast(pa.float64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number", _finite(name, values.cast(pa.float64()))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        # A time of a zone is stored in UTC; Arrow holds it so already.
        return "time", values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.timestamp("us"))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return "text", _short(name, values.cast(pa.string()))
    raise InvalidRequest(f"column {name!r} is {kind}; a column holds text, numbers, booleans or times")


def _finite(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The numbers, with null for NaN, which tables use for a missing value."""
    if pc.any(pc.is_inf(values)).as_py():
        raise InvalidRequest(f"column {name!r} has infinite numbers")
    return pc.if_else(pc.is_nan(values), None, values)


def _short(name: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    longest = pc.max(pc.utf8_length(values)).as_py() or 0
    if longest > MAX_TEXT:
        raise InvalidRequest(f"column {name!r} has a text of {longest:,} characters; the limit is {MAX_TEXT:,}")
    return values


def _batches(file: BinaryIO, magic: bytes) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if magic.startswith(b"PAR1"):
        table = open_parquet(file, lambda name: name not in _OF_VECTORS, BATCH_ROWS)
    elif magic == MAGIC:
        table = open_arrow_file(file)
    elif magic.startswith(b"\xff\xff\xff\xff"):
        table = open_arrow_stream(file)
    else:
        return _csv(file)
    return table.schema, table.batches()


def _csv(file: BinaryIO) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    key_types = {"sample_id": pa.string(), "file_name": pa.string()}
    # Types follow from the first block, so that a large one is better.
    reader = csv.open_csv(
        file,
        csv.ReadOptions(block_size=8 * 2**20),
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(column_types=key_types, strings_can_be_null=True),
    )
    return reader.schema, iter(reader)


def _bounded(
    source: tuple[pa.Schema, Iterator[pa.RecordBatch]],
) -> tuple[list[pa.RecordBatch], pa.Schema]:
    schema, batches = source
    _check_number(len(schema) - len(FIXED) - len(_OF_VECTORS))
    kept: list[pa.RecordBatch] = []
    n_bytes = 0
    for batch in batches:
        batch.validate(full=True)  # a damaged Arrow file may hold offsets that point outside its buffers
        n_bytes += sum(_typed_bytes(column) for column in batch.columns)
        if n_bytes > MAX_BYTES:
            raise InvalidRequest(f"the columns take more than {MAX_BYTES // 2**20} MiB; send fewer at a time")
        kept.append(_written_out(batch))
    return kept, kept[0].schema if kept else _written_out(schema.empty_table()).schema


def _typed_bytes(column: pa.Array) -> int:
    """The bytes of a column once it is typed: a few bytes can hold many nulls, or many copies of a text."""
    texts = column.dictionary if pa.types.is_dictionary(column.type) else column
    n_bytes = 0
    if is_text(texts.type):
        lengths = text_lengths(texts)
        n_bytes = pc.sum(lengths.take(column.indices) if texts is not column else lengths).as_py() or 0
    return max(int(column.nbytes), _CELL_BYTES * len(column) + n_bytes)


def _written_out(batch: pa.RecordBatch | pa.Table) -> pa.RecordBatch | pa.Table:
    """The same rows without dictionaries, which differ between batches."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return type(batch).from_arrays(columns, names=batch.schema.names)
