"""Bulk answers as streams: pages of Arrow in, one Parquet file, Arrow stream or JSON array out.

Memory is bounded by a page, whatever the size of the dataset: each page becomes one row group or batch,
and what is encoded leaves before the next page is read.
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
"""An Arrow IPC stream and the `after` of the next page, None at the end."""

ARROW_MEDIA_TYPE = "application/vnd.apache.arrow.stream"
MEDIA_TYPES: dict[ExportFormat, str] = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": ARROW_MEDIA_TYPE,
}


async def pages(first: Page[After], read: Callable[[After], Awaitable[Page[After]]]) -> AsyncIterator[bytes]:
    """The first page, then every other one by its `after`.

    The first is read by the caller: its errors still have a status code to go to.
    """
    page, after = first
    yield page
    while after is not None:
        page, after = await read(after)
        yield page


async def arrow_stream(source: AsyncIterator[bytes], format: ExportFormat = "arrow") -> AsyncIterator[bytes]:
    """Re-encode pages of one schema as one file, a chunk of bytes a page."""
    drain = _Drain()
    writer: _TableWriter | None = None
    async for page in source:
        table = await asyncio.to_thread(_table, page)
        if writer is None:
            writer = _writer(drain, table.schema, format)
        await asyncio.to_thread(writer.write_table, table)
        yield drain.take()
    if writer is not None:
        await asyncio.to_thread(writer.close)
        yield drain.take()


async def points_json(source: AsyncIterator[bytes], dataset_id: str) -> AsyncIterator[bytes]:
    """Pages of `Vectors.points` as one JSON array of `{sampleId,x,y,fileName,label,thumbnailPath}`."""
    separator = "["
    async for page in source:
        text = await asyncio.to_thread(_points_text, page, dataset_id)
        if text:
            yield (separator + text).encode()
            separator = ","
    yield b"]" if separator == "," else b"[]"


class _TableWriter(Protocol):
    """What Parquet's and the IPC stream's writer have in common."""

    def write_table(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


class _Drain(io.RawIOBase):
    """A file that keeps only what nobody has taken yet, and counts the rest."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._n_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        chunk = bytes(data)
        self._chunks.append(chunk)
        self._n_bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._n_bytes

    def take(self) -> bytes:
        taken = b"".join(self._chunks)
        self._chunks.clear()
        return taken


def _table(page: bytes) -> pa.Table:
    return pa.ipc.open_stream(page).read_all()


def _writer(drain: _Drain, schema: pa.Schema, format: ExportFormat) -> _TableWriter:
    sink = pa.PythonFile(drain, mode="w")
    # Ids and vectors are unique: a dictionary of them costs time and saves nothing.
    repetitive = [name for name in ("label", "model_name") if name in schema.names]
    writer: _TableWriter = (
        pa.ipc.new_stream(sink, schema)
        if format == "arrow"
        else pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=repetitive)
    )
    return writer


def _points_text(page: bytes, dataset_id: str) -> str:
    """The objects of one page, without brackets; empty for an empty page."""
    folder = f"/datasets/{quote(dataset_id, safe='')}/samples/"
    columns = _table(page).to_pydict()
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
