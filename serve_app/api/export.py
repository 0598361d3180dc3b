"""Bulk answers as streams: turns pages of Arrow into one Parquet file, Arrow stream or JSON array.

A stream needs memory for one page, whatever the size of the dataset: each page becomes one row group or batch, and
its bytes are sent before the next page is read.
"""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

ExportFormat = Literal["parquet", "arrow"]
After = TypeVar("After", int, str)
Page = tuple[bytes, After | None]
"""An Arrow IPC stream, and the `after` of the next page (None at the end)."""

ARROW_MEDIA_TYPE = "application/vnd.apache.arrow.stream"
MEDIA_TYPES: dict[ExportFormat, str] = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": ARROW_MEDIA_TYPE,
}


async def pages(first: Page[After], read: Callable[[After], Awaitable[Page[After]]]) -> AsyncIterator[bytes]:
    """The first page, and then every further page, read by its `after`.

    The caller reads the first page before the answer begins, so that an error can still become a status code.
    """
    page, after = first
    yield page
    while after is not None:
        page, after = await read(after)
        yield page


async def arrow_stream(source: AsyncIterator[bytes], format: ExportFormat = "arrow") -> AsyncIterator[bytes]:
    """Re-encode pages of one schema as one file, and yield the bytes of each page."""
    drain = Drain()
    writer: _TableWriter | None = None
    async for page in source:
        rows = await asyncio.to_thread(table, page)
        if writer is None:
            writer = _writer(drain, rows.schema, format)
        await asyncio.to_thread(writer.write_table, rows)
        yield drain.take()
    if writer is not None:
        await asyncio.to_thread(writer.close)
        yield drain.take()


async def points_json(source: AsyncIterator[bytes], dataset_id: str) -> AsyncIterator[bytes]:
    """Re-encode pages of `Vectors.points` as a JSON array of `{sampleId,x,y,fileName,label,thumbnailPath}`."""
    separator = "["
    async for page in source:
        text = await asyncio.to_thread(_points_text, page, dataset_id)
        if text:
            yield (separator + text).encode()
            separator = ","
    yield b"]" if separator == "," else b"[]"


class _TableWriter(Protocol):
    """The methods that the writers of Parquet and of IPC streams share."""

    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class Drain(io.RawIOBase):
    """A file that keeps written bytes until they are taken, and counts all bytes."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._n_bytes = 0
        self._n_taken = 0

    @property
    def waiting(self) -> int:
        """The number of bytes that were not taken yet."""
        return self._n_bytes - self._n_taken

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Keep bytes."""
        chunk = bytes(data)
        self._chunks.append(chunk)
        self._n_bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        """The number of bytes written so far, taken ones included."""
        return self._n_bytes

    def take(self) -> bytes:
        """The bytes that were written since the last call."""
        taken = b"".join(self._chunks)
        self._chunks.clear()
        self._n_taken += len(taken)
        return taken


def table(page: bytes) -> pa.Table:
    """The rows of a page."""
    return pa.ipc.open_stream(page).read_all()


def _writer(drain: Drain, schema: pa.Schema, format: ExportFormat) -> _TableWriter:
    sink = pa.PythonFile(drain, mode="w")
    # Ids and vectors are unique, so a dictionary of them would cost time and save nothing.
    repetitive = [name for name in ("label", "model_name") if name in schema.names]
    writer: _TableWriter = (
        pa.ipc.new_stream(sink, schema)
        if format == "arrow"
        else pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repetitive)
    )
    return writer


def _points_text(page: bytes, dataset_id: str) -> str:
    """The JSON objects of one page without the array's brackets; an empty page gives an empty text."""
    folder = f"/datasets/{quote(dataset_id, safe='')}/samples/"
    columns = table(page).to_pydict()
    rows = zip(*(columns[name] for name in ("sample_id", "x", "y", "file_name", "label")), strict=True)
    points = [
        {
            "sampleId": sample_id,
            "x": x,
            "y": y,
            "fileName": file_name,
            "label": label,
            "thumbnailPath": f"{folder}{quote(sample_id)}/thumbnail",
        }
        for sample_id, x, y, file_name, label in rows
    ]
    return json.dumps(points, ensure_ascii=False, allow_nan=False)[1:-1]
