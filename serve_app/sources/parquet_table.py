"""A Parquet file of names and labels, read within bounds whatever its bytes are."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serve_app.errors import InvalidRequest, Unavailable
from serve_app.sources.listing import MAX_NAME_BYTES, shown
from serve_app.sources.parquet_pages import Weight, check_column

BATCH_ROWS = 2000
MAX_FOOTER_BYTES = 64 << 20
MAX_ROWS = 1 << 31
MAX_FURTHER_BYTES = 256 << 20
"""The stated size of a further column; all that a dataset keeps of them is no more."""
_END = struct.Struct("<I4s")


class Table:
    """An open Parquet file; columns are read one batch of rows after another.

    Raises:
        InvalidRequest: the file is not Parquet.
        Unavailable: there is not enough memory.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._row = 0
        read_footer(file, name)
        with refusing(repr(name)):
            self.metadata = pq.read_metadata(file)
            self.schema = self.metadata.schema.to_arrow_schema()
            if not 0 <= self.metadata.num_rows <= MAX_ROWS:
                raise InvalidRequest(f"{name!r} states that it has {self.metadata.num_rows:,} rows")

    def further(self, known: list[str], notices: list[str]) -> list[str]:
        """The columns besides the known ones that can be read as values; `notices` gets a sentence about the others."""
        left_out: dict[str, list[str]] = {}
        names: list[str] = []
        for column in dict.fromkeys(self.schema.names):
            if column in known:
                continue
            reason = self._objection(column)
            if reason is None:
                names.append(column)
            else:
                left_out.setdefault(reason, []).append(column)
        notices.extend(f"left out: {shown(columns)}, {reason}" for reason, columns in left_out.items())
        return names

    def _objection(self, column: str) -> str | None:
        if self.schema.names.count(column) > 1:
            return "because several columns have the name"
        if not _can_be_values(self.schema.field(column).type):
            return "columns of lists, structures, bytes or other types that are not stored"
        groups = [self.metadata.row_group(number) for number in range(self.metadata.num_row_groups)]
        chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
        n_bytes = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)
        if n_bytes > MAX_FURTHER_BYTES:
            return f"columns of more than {MAX_FURTHER_BYTES >> 20} MiB"
        try:
            with refusing(repr(self._name)):
                for group in groups:
                    check_group(self._file, group, {column}, self._name)
        except InvalidRequest:
            return "columns that are damaged or grow more than 200-fold"
        return None

    def batches(
        self, columns: list[str], groups: list[int] | None = None, *, further: list[str] | None = None
    ) -> Iterator[list[list[object]]]:
        """The cells of the columns, `BATCH_ROWS` rows at a time.

        Args:
            columns: columns of texts, binary texts, numbers or truth values.
            groups: the row groups; all of them if None.
            further: columns whose cells follow as values, as `further` returns them: texts (of a longer one only the
                beginning), numbers, truth values, and times in UTC.

        Raises:
            InvalidRequest: the file is damaged, would take too much memory, or has a column of another type or name.
            Unavailable: there is not enough memory.
        """
        for column in columns:
            self._require_cells(column)
        groups = list(range(self.metadata.num_row_groups)) if groups is None else groups
        with refusing(repr(self._name), where=lambda: f" after row {self._row}"):
            wanted, values = [*columns, *(further or ())], further or []
            weights = [
                weight
                for group in groups
                for weight in check_group(self._file, self.metadata.row_group(group), set(wanted), self._name)
            ]
            n_rows = min((weight.rows_at_once(BATCH_ROWS) for weight in weights), default=BATCH_ROWS)
            texts = [] if any(weight.widest_bytes for weight in weights) else wanted
            table = pq.ParquetFile(self._file, metadata=self.metadata, read_dictionary=texts)
            for batch in table.iter_batches(n_rows, row_groups=groups, columns=wanted, use_threads=False):
                cells = [self._cells(batch.column(batch.schema.get_field_index(column))) for column in columns]
                yield cells + [_values(batch.column(batch.schema.get_field_index(column))) for column in values]
                self._row += batch.num_rows

    def _require_cells(self, column: str) -> None:
        if self.schema.names.count(column) > 1:
            raise InvalidRequest(f"{self._name!r} has two columns {column!r}; rename one of them")
        kind = self.schema.field(column).type
        if not can_be_cells(kind):
            raise InvalidRequest(f"the column {column!r} of {self._name!r} is of type {kind}, not texts or numbers")

    def _cells(self, column: pa.Array) -> list[object]:
        require_short(column, self._name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if _is_written_out(column.type):
            column = column.cast(pa.string())
        return [cell.decode("utf-8") if isinstance(cell, bytes) else cell for cell in column.to_pylist()]


def _values(column: pa.Array) -> list[object]:
    if pa.types.is_dictionary(column.type):
        texts = column.dictionary
        if is_text(texts.type):
            texts = pc.utf8_slice_codeunits(texts.cast(pa.string()), 0, MAX_NAME_BYTES + 1)
            column = pa.DictionaryArray.from_arrays(column.indices, texts)
        column = column.cast(texts.type)
    elif is_text(column.type):
        column = pc.utf8_slice_codeunits(column.cast(pa.string()), 0, MAX_NAME_BYTES + 1)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    try:
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            zone = getattr(column.type, "tz", None)  # Arrow holds a time of a zone in UTC
            column = column.cast(pa.timestamp("us", zone), safe=False).cast(pa.timestamp("us"))
        return column.to_pylist()  # type: ignore[no-any-return]
    except (pa.ArrowException, ValueError, OverflowError):  # a year that Python does not know
        return column.cast(pa.string()).to_pylist()  # type: ignore[no-any-return]


def _can_be_values(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_bytes = any(is_kind(kind) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))
    return can_be_cells(kind) and not is_bytes


def check_group(file: IO[bytes], group: pq.RowGroupMetaData, columns: set[str], name: str) -> list[Weight]:
    """Apply `parquet_pages.check_column` to the leaves of these columns. Raises `InvalidRequest`."""
    weights = []
    for position in range(group.num_columns):
        column = group.column(position)
        path = column.path_in_schema  # a name can hold a dot, as the paths of nested columns do
        if any(path == wanted or path.startswith(f"{wanted}.") for wanted in columns):
            weights.append(check_column(file, column, name))
    return weights


def read_footer(file: IO[bytes], name: str) -> int:
    """A number that tells two footers apart: their CRC-32.

    Raises:
        InvalidRequest: the file does not end as Parquet does, or its footer is longer than `MAX_FOOTER_BYTES`.
    """
    with refusing(repr(name)):
        size = file.seek(0, 2)
        if size < _END.size:
            raise InvalidRequest(f"{name!r} cannot be read as Parquet: it has only {size} bytes")
        file.seek(size - _END.size)
        n_bytes, magic = _END.unpack(file.read(_END.size))
        if magic not in (b"PAR1", b"PARE") or n_bytes > min(size, MAX_FOOTER_BYTES):
            raise InvalidRequest(f"{name!r} cannot be read as Parquet: its last bytes are not those of a Parquet file")
        file.seek(max(0, size - _END.size - n_bytes))
        mark = zlib.crc32(file.read(n_bytes))
        file.seek(0)
    return mark


@contextmanager
def refusing(file: str, formats: str = "Parquet", *, where: Callable[[], str] = str) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into `InvalidRequest`, and a lack of memory into `Unavailable`.

    Args:
        file: what messages call the file: its quoted name, or "the file".
        formats: the formats that it could have had.
        where: gives the place in the file, for messages.
    """
    try:
        yield
    except MemoryError:
        raise Unavailable(f"there is not enough memory to read {file} now; try again") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError, TypeError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InvalidRequest(f"{file} cannot be read as {formats}{where()}: {problem}") from None


def can_be_cells(kind: pa.DataType) -> bool:
    """Whether the values of a column can be file names or labels."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return is_text(kind) or _is_written_out(kind) or any(is_kind(kind) for is_kind in numbers)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, or bytes that may be texts."""
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return _is_view(kind) or any(is_kind(kind) for is_kind in texts)


def _is_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_written_out(kind: pa.DataType) -> bool:
    """Whether Arrow has to turn the values into texts, because Python cannot hold all of them."""
    return bool(pa.types.is_decimal(kind) or pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def require_short(column: pa.Array, name: str) -> None:
    """Refuse a column with a text that is longer than any file name or label, before its texts are copied.

    Raises:
        InvalidRequest: a text has more than `MAX_NAME_BYTES`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary
    if not is_text(column.type):
        return
    longest = pc.max(text_lengths(column)).as_py() or 0
    if longest > MAX_NAME_BYTES:
        raise InvalidRequest(f"{name!r} has a text of {longest:,} bytes in a cell, more than {MAX_NAME_BYTES:,}")


def text_lengths(column: pa.Array) -> pa.Array:
    """The number of bytes of each text; none is copied, since the texts of a view can overlap."""
    if not _is_view(column.type):
        return pc.binary_length(column)
    views = np.frombuffer(column.buffers()[1] or b"", np.int32)[::4]  # a view has 16 bytes and begins with its length
    lengths = views[column.offset : column.offset + len(column)]
    return pc.if_else(column.is_valid(), pa.array(lengths), None)
