"""Routes of a dataset's vectors and map: generate, reduce, cancel, status, skips, download."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Response
from starlette.responses import StreamingResponse

from serve_app.api import export, problems, webhook
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.datasets import forget_files
from serve_app.api.schemas import (
    Cursor,
    GenerateOptions,
    JobCancelled,
    JobStarted,
    Limit,
    Point,
    ReduceOptions,
    RequiredSetModel,
    SetModel,
    SkipPage,
    Where,
)
from serve_app.embedding import weights
from serve_app.errors import (
    Conflict,
    DatasetNotFound,
    InvalidFilter,
    JobRunning,
    NoEmbeddings,
    NotFound,
    NothingRunning,
    UnknownModel,
)
from serve_app.projection.reduction import Projection
from serve_app.records import EmbeddingStatus
from serve_app.services import Services
from serve_app.store.datasets import Datasets
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors

router = APIRouter(prefix="/datasets/{dataset_id}/embeddings", tags=["embeddings"])

EXPORT_PAGE_ROWS = 2048
"""The number of rows in a Parquet row group: 6 MiB for vectors of 768 numbers."""
POINTS_PAGE_ROWS = 50_000

STARTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "the job is on disk and will run",
        "headers": {"Location": {"description": "the job", "required": True, "schema": {"type": "string"}}},
    }
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "/generate",
    status_code=202,
    responses=STARTED | problems.documented(DatasetNotFound, JobRunning, UnknownModel),
)
async def generate_embeddings(
    dataset_id: str,
    services: ServicesNow,
    context: ContextNow,
    response: Response,
    options: GenerateOptions | None = None,
) -> JobStarted:
    """Embed a dataset. The service answers when the job is on disk; from then on the job survives any crash."""
    options = options or GenerateOptions()
    model_name = await asyncio.to_thread(weights.admit, options.model_name or context.settings.model)
    notify_url = webhook.checked(options.notify_url, context.settings)
    job = await services.writer.ask(
        Jobs.create, dataset_id, "embed", model_name=model_name, force=options.force, notify_url=notify_url
    )
    await services.runner.nudge()
    response.headers["Location"] = f"/jobs/{job.id}"
    return JobStarted(dataset_id=dataset_id, message=f"Embedding {job.total} images with {model_name}.", job_id=job.id)


@router.post(
    "/reduce", status_code=202, responses=STARTED | problems.documented(NoEmbeddings, DatasetNotFound, JobRunning)
)
async def reduce_embeddings(
    dataset_id: str,
    services: ServicesNow,
    context: ContextNow,
    response: Response,
    options: ReduceOptions | None = None,
    model: SetModel = None,
) -> JobStarted:
    """Lay the vectors of a set out on a 2D map.

    Parameters that the body leaves out are those of the set's last map, unless it asks to redraw.
    """
    options = options or ReduceOptions()
    notify_url = webhook.checked(options.notify_url, context.settings)
    given = options.model_dump(exclude={"notify_url"}, exclude_unset=True)
    job = await services.writer.ask(
        Jobs.create,
        dataset_id,
        "reduce",
        model_name=model,
        params={"redraw": options.redraw, **given},
        defaults=Projection().model_dump(),
        notify_url=notify_url,
    )
    await services.runner.nudge()
    response.headers["Location"] = f"/jobs/{job.id}"
    return JobStarted(dataset_id=dataset_id, message="Computing the 2D map.", job_id=job.id)


@router.post("/cancel", status_code=202, responses=problems.documented(DatasetNotFound, NothingRunning))
async def cancel_job(dataset_id: str, services: ServicesNow) -> JobCancelled:
    """Cancel the dataset's running job, of any kind; the vectors and the map stay as they were."""
    job = await services.writer.ask(Jobs.cancel, dataset_id)
    await services.runner.nudge()
    return JobCancelled(dataset_id=dataset_id, message=job.message, job_id=job.id)


@router.get("/status", responses=problems.documented(DatasetNotFound))
async def get_embedding_status(dataset_id: str, services: ServicesNow, model: SetModel = None) -> EmbeddingStatus:
    """Get the state of the dataset's vectors and map, and the list of its sets, one for each model."""
    return await services.writer.ask(Vectors.status, dataset_id, model)


@router.delete("", status_code=204, responses=problems.documented(NotFound, DatasetNotFound, JobRunning))
async def delete_embeddings(dataset_id: str, services: ServicesNow, model: RequiredSetModel) -> None:
    """Delete the set of one model with its map and graph; those of other models stay."""
    await services.writer.ask(Vectors.delete, dataset_id, model)
    await forget_files(services, dataset_id)


@router.get("/skipped", responses=problems.documented(DatasetNotFound, Conflict))
async def list_skipped(dataset_id: str, services: ServicesNow, limit: Limit = 1000, cursor: Cursor = None) -> SkipPage:
    """List the images or rows that the last embed or import job skipped, and why.

    Once a newer job has begun, cursors of pages before it get 409: begin anew.
    """
    items, next_cursor = await services.writer.ask(Jobs.skipped, dataset_id, limit=limit, cursor=cursor)
    return SkipPage(items=items, next_cursor=next_cursor)


@router.get(
    "/coordinates",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "every point of the map, none before any reduction",
            "model": list[Point],
            "content": {export.ARROW_MEDIA_TYPE: _BINARY},
        },
        **problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound),
    },
)
async def get_coordinates(
    dataset_id: str,
    services: ServicesNow,
    where: Where = None,
    model: SetModel = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> StreamingResponse:
    """Get the map as JSON, or as Arrow if `Accept` names `application/vnd.apache.arrow.stream`.

    If the stream breaks off, a newer map has replaced this one, or a rescan found other images: ask again.
    """

    async def read(after: str | None) -> export.Page[str]:
        return await services.writer.ask(
            Vectors.points, dataset_id, after=after, limit=POINTS_PAGE_ROWS, where=where, model=model
        )

    pages = export.pages(await read(None), read)
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    if export.ARROW_MEDIA_TYPE in accept.lower():
        return StreamingResponse(export.arrow_stream(pages), headers=headers, media_type=export.ARROW_MEDIA_TYPE)
    return StreamingResponse(export.points_json(pages, dataset_id), headers=headers, media_type="application/json")


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "`sample_id, file_name, label, model_name, vector, x, y`, stored columns; a row a sample",
            "content": {media_type: _BINARY for media_type in export.MEDIA_TYPES.values()},
        },
        **problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, Conflict),
    },
)
async def export_embeddings(
    dataset_id: str,
    services: ServicesNow,
    format: export.ExportFormat = "parquet",
    where: Where = None,
    model: SetModel = None,
) -> StreamingResponse:
    """Download the dataset's vectors and map. If the stream breaks off, the set has changed.

    The change is a newer set of vectors, or a rescan that found other images.
    """
    dataset = await services.writer.ask(Datasets.get, dataset_id)
    stream = export.arrow_stream(await vector_pages(services, dataset_id, where, EXPORT_PAGE_ROWS, model), format)
    headers = {"Content-Disposition": attachment(f"{dataset.name}.{format}"), "Cache-Control": "no-store"}
    return StreamingResponse(stream, headers=headers, media_type=export.MEDIA_TYPES[format])


async def vector_pages(
    services: Services, dataset_id: str, where: str | None, limit: int, model: str | None = None
) -> AsyncIterator[bytes]:
    """Pages of `Vectors.export` of one version, the first one read already. Raises as `Vectors.export` does."""
    version = (await services.writer.ask(Vectors.current, dataset_id, model)).version

    async def read(after: int) -> export.Page[int]:
        return await services.writer.ask(
            Vectors.export, dataset_id, version=version, after=after, limit=limit, where=where
        )

    return export.pages(await read(-1), read)


def attachment(file_name: str) -> str:
    """The `Content-Disposition` of a file to save under this name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", file_name).lstrip(".")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe='')}"
