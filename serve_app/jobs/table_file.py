"""An uploaded Parquet or Arrow file, opened only if its rows take memory in proportion to its bytes."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from serve_app.jobs import arrow_messages
from serve_app.sources.parquet_table import check_group, is_text

NAME = "upload"
"""The file's name in messages."""


class TableFile(NamedTuple):
    """The schema and the number of rows, and a function that reads the rows from the start.

    Texts of a Parquet file come as dictionaries, so that their repetitions cost nothing.
    """

    schema: pa.Schema
    n_rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


def open_parquet(file: BinaryIO, is_wanted: Callable[[str], bool], batch_rows: int) -> TableFile:
    """Open a Parquet file for the wanted columns; its row groups are checked as they are read.

    Raises:
        InvalidRequest: while rows are read, if they would take too much memory or a page is damaged. pyarrow finds
            other damage, so call this, and what it returns, within `parquet_table.refusing`.
    """
    source = _mapped(file)
    plain = pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20)
    schema, metadata = plain.schema_arrow, plain.metadata
    fields = [field for field in schema if is_wanted(field.name)]
    names, texts = [field.name for field in fields], [field.name for field in fields if is_text(field.type)]

    def batches() -> Iterator[pa.RecordBatch]:
        for group in range(metadata.num_row_groups):
            if metadata.row_group(group).num_rows == 0:
                continue  # pyarrow writes no page for it
            weights = check_group(file, metadata.row_group(group), set(names), NAME)
            n_rows = min((weight.rows_at_once(batch_rows) for weight in weights), default=batch_rows)
            repeated = [] if any(weight.widest_bytes for weight in weights) else texts
            parquet = pq.ParquetFile(
                source, metadata=metadata, read_dictionary=repeated, pre_buffer=False, buffer_size=2**20
            )
            yield from parquet.iter_batches(batch_size=n_rows, row_groups=[group], columns=names)

    return TableFile(pa.schema(fields, schema.metadata), metadata.num_rows, batches)


def open_arrow_file(file: BinaryIO) -> TableFile:
    """Open an Arrow IPC file. Raises `InvalidRequest` as `open_parquet` does."""
    arrow_messages.check(file)
    table = pa.ipc.open_file(_mapped(file))
    numbers = range(table.num_record_batches)
    n_rows = sum(table.get_batch(number).num_rows for number in numbers)
    return TableFile(table.schema, n_rows, lambda: (table.get_batch(number) for number in numbers))


def open_arrow_stream(file: BinaryIO) -> TableFile:
    """Open an Arrow IPC stream. Raises `InvalidRequest` as `open_parquet` does."""
    arrow_messages.check(file)

    def stream() -> pa.RecordBatchStreamReader:
        return pa.ipc.open_stream(_mapped(file))

    return TableFile(stream().schema, sum(batch.num_rows for batch in stream()), lambda: iter(stream()))


def _mapped(file: BinaryIO) -> pa.MemoryMappedFile:
    # Mapping keeps an Arrow file of any size on disk. The path /dev/fd also works for a file without a name.
    return pa.memory_map(f"/dev/fd/{file.fileno()}")
