"""Routes of columns: list them with what is in them, add or replace some from a file, delete one."""

import asyncio
import tempfile
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from serve_app.api import export, problems
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.guards import TABLES
from serve_app.api.imports import spool
from serve_app.errors import (
    DatasetNotFound,
    InvalidRequest,
    NotFound,
    Saturated,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from serve_app.jobs import column_file
from serve_app.store.column_records import ColumnInfo, ColumnsChange
from serve_app.store.columns import Columns
from serve_app.store.datasets import Datasets

router = APIRouter(prefix="/datasets/{dataset_id}/columns", tags=["columns"])

VALUES_PAGE_ROWS = 50_000

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "CSV, Parquet or Arrow IPC: `sample_id` or `file_name`, and columns of text, numbers, booleans "
        "or times",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in ("text/csv", *TABLES)
        },
    }
}


@router.get("", responses=problems.documented(DatasetNotFound))
async def list_columns(dataset_id: str, services: ServicesNow) -> list[ColumnInfo]:
    """List the dataset's columns: type, and the most frequent values or the range."""
    return await services.writer.ask(Columns.all, dataset_id)


@router.put(
    "",
    openapi_extra=_BODY,
    responses=problems.documented(
        InvalidRequest, DatasetNotFound, TooLarge, UnsupportedMediaType, Saturated, Unavailable
    ),
)
async def put_columns(dataset_id: str, request: Request, services: ServicesNow, context: ContextNow) -> ColumnsChange:
    """Add columns from a file, or replace those that have the names; other columns stay as they are.

    Rows that name no sample, several samples, or one that an earlier row named are refused: `refused` counts them and
    has examples. `ignored` names the columns of an export that follow from the listing, tags or vectors.
    """
    await services.writer.ask(Datasets.get, dataset_id)
    context.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=context.settings.data_dir) as file:
        await spool(request, file)
        found = await asyncio.to_thread(column_file.read, file)
    change = await services.writer.ask(Columns.put, dataset_id, found.given)
    return replace(change, ignored=found.ignored)


@router.get(
    "/{name}",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`sample_id, value` as an Arrow stream; samples without a value are left out",
            "content": {export.ARROW_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems.documented(DatasetNotFound, NotFound),
    },
)
async def get_column(dataset_id: str, name: str, services: ServicesNow) -> StreamingResponse:
    """Get the values of one column; the tags of a sample are one text, parted by commas."""

    async def read(after: int) -> export.Page[int]:
        return await services.writer.ask(Columns.values, dataset_id, name, after=after, limit=VALUES_PAGE_ROWS)

    stream = export.arrow_stream(export.pages(await read(-1), read))
    return StreamingResponse(stream, headers={"Cache-Control": "no-store"}, media_type=export.ARROW_MEDIA_TYPE)


@router.delete("/{name}", status_code=204, responses=problems.documented(DatasetNotFound, NotFound))
async def delete_column(dataset_id: str, name: str, services: ServicesNow) -> None:
    """Delete a stored column with its values."""
    if not await services.writer.ask(Columns.remove, dataset_id, name):
        raise NotFound(f"the dataset has no stored column {name!r}")
