"""Findings as files: a plan has one row for each sample, as CSV or Parquet, and nobody carries it out."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from fastapi import Query
from starlette.responses import Response

from serve_app.api.embeddings import attachment

PlanFormat = Literal["json", "csv", "parquet"]
Format = Annotated[PlanFormat, Query(description="`csv` and `parquet` have one row for each sample, to save as a file")]

MEDIA_TYPES: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": _BINARY, "application/vnd.apache.parquet": _BINARY}}
}
"""The further answers of a route that has `Format`."""


def plan(rows: Iterable[Mapping[str, object]], columns: Mapping[str, pa.DataType], name: str, format: str) -> Response:
    """A file of rows.

    Args:
        rows: each has a value for every column, or None.
        columns: their types.
        name: of the file, without its ending.
        format: "csv" or "parquet".
    """
    return file_of(pa.Table.from_pylist([dict(row) for row in rows], pa.schema(list(columns.items()))), name, format)


def file_of(table: pa.Table, name: str, format: str) -> Response:
    """A file of a table; `format` is "csv" or "parquet"."""
    sink = BytesIO()
    if format == "csv":
        csv.write_csv(table, sink)
    else:
        pq.write_table(table, sink, compression="zstd")
    headers = {"Content-Disposition": attachment(f"{name}.{format}"), "Cache-Control": "no-store"}
    return Response(sink.getvalue(), headers=headers, media_type=MEDIA_TYPES[format])
