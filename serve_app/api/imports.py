"""The route that imports vectors made elsewhere."""

import asyncio
import tempfile
from typing import Annotated, Any, BinaryIO, get_args

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import StringConstraints
from pydantic.json_schema import SkipJsonSchema
from starlette.requests import ClientDisconnect

from serve_app.api import problems, webhook
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.guards import TABLES
from serve_app.api.schemas import JobStarted, Text
from serve_app.errors import (
    DatasetNotFound,
    DiskFull,
    InvalidRequest,
    JobRunning,
    Saturated,
    StaleAttempt,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from serve_app.jobs.import_job import stage_import
from serve_app.jobs.vector_file import VectorFile
from serve_app.records import JobKind
from serve_app.services import Writer
from serve_app.sources.bulk import MAX_TEXT
from serve_app.store.datasets import Datasets
from serve_app.store.jobs import Jobs

router = APIRouter(prefix="/datasets/{dataset_id}/embeddings", tags=["embeddings"])

_Text = StringConstraints(min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f]$")
SpaceKey = Annotated[
    Annotated[str, _Text] | SkipJsonSchema[None],
    Query(
        description="which space the vectors are of: equal keys mean that they may be compared. "
        "Not needed where the file's schema metadata has a `space_key`, as exports do",
        examples=["clip-vit-b-32/openai"],
    ),
]
ModelName = Annotated[
    Annotated[str, _Text] | SkipJsonSchema[None],
    Query(
        description="what made the vectors. Not needed where the file has a column or schema metadata `model_name`",
        examples=["clip-vit-b-32"],
    ),
]
NotifyUrlQuery = Annotated[
    Annotated[Text, StringConstraints(min_length=1, max_length=2048)] | SkipJsonSchema[None],
    Query(alias="notify_url", description="http(s) URL below a dataset root that is told, signed, when the job ends"),
]
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Parquet or Arrow IPC: `sample_id` or `file_name`, `vector`, and `x, y` or neither",
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in TABLES},
    }
}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "every row is on disk, and the job will make them the dataset's vectors",
        "headers": {"Location": {"description": "the job", "required": True, "schema": {"type": "string"}}},
    }
}


@router.post(
    "/import",
    status_code=202,
    openapi_extra=_BODY,
    responses=_ACCEPTED
    | problems.documented(
        InvalidRequest,
        DatasetNotFound,
        DiskFull,
        JobRunning,
        StaleAttempt,
        TooLarge,
        UnsupportedMediaType,
        Saturated,
        Unavailable,
    ),
)
async def import_vectors(
    dataset_id: str,
    request: Request,
    services: ServicesNow,
    context: ContextNow,
    response: Response,
    space_key: SpaceKey = None,
    model_name: ModelName = None,
    notify_url: NotifyUrlQuery = None,
) -> JobStarted:
    """Make the vectors and the map of a file the dataset's set of their model; an older set of this model is replaced.

    The job imports the usable rows and lists the others (unknown sample, wrong dimension, not finite, zero, given
    twice) under `/embeddings/skipped`. A job that fails changes nothing.
    """
    notify_url = webhook.checked(notify_url, context.settings)
    await _require_idle(services.writer, dataset_id)
    context.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=context.settings.data_dir) as file:
        await spool(request, file)
        source = await asyncio.to_thread(VectorFile, file)
        space_key = _required(space_key or source.space_key, "space_key", "give it the same name as schema metadata")
        model_name = _required(model_name or source.model_name, "model_name", "add a column of that name")
        job = await stage_import(
            services.writer, dataset_id, source, model_name=model_name, space_key=space_key, notify_url=notify_url
        )
    await services.runner.nudge()
    response.headers["Location"] = f"/jobs/{job.id}"
    message = f"Importing {source.total:,} vectors of dimension {source.dimension}."
    return JobStarted(dataset_id=dataset_id, message=message, job_id=job.id)


async def _require_idle(writer: Writer, dataset_id: str) -> None:
    """Refuse the import before its large body arrives. Raises `DatasetNotFound`, `JobRunning`."""
    await writer.ask(Datasets.get, dataset_id)
    for job in await writer.ask(Jobs.latest, [(dataset_id, kind) for kind in get_args(JobKind)]):
        if job is not None and job.status == "running":
            raise JobRunning(job.id)


async def spool(request: Request, file: BinaryIO) -> None:
    """Write a request's body to a file as it arrives. Raises `Unavailable` where the disk refuses it."""
    try:
        async for part in request.stream():
            await asyncio.to_thread(file.write, part)
    except ClientDisconnect:
        raise HTTPException(400, "The client left before the body was complete.") from None
    except OSError as error:
        raise Unavailable(f"The file cannot be kept while it is read: {error.strerror}.") from None


def _required(value: str | None, name: str, otherwise: str) -> str:
    """Check a required value; one that comes from the file has not been checked before."""
    if not value:
        raise InvalidRequest(f"say what the vectors are: add ?{name}=… to the address, or {otherwise}")
    if len(value) > MAX_TEXT or not value.isprintable():
        raise InvalidRequest(f"the file's {name} is not a printable text of at most {MAX_TEXT} characters")
    return value
