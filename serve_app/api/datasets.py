"""Routes of datasets: register a folder, list, rescan, delete."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from serve_app.api import problems, registration, webhook
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.preference import APPLIED, RespondAsync
from serve_app.api.schemas import Cursor, JobStarted, Limit, NewDataset, RescanOptions, SamplePage, SetModel, Where
from serve_app.errors import (
    AsyncNeeded,
    Conflict,
    DatasetNotFound,
    InvalidFilter,
    InvalidRequest,
    JobRunning,
    NameTaken,
    OutsideRoots,
    ServiceError,
)
from serve_app.jobs.listing import Lister
from serve_app.records import Dataset, Job, ScanChange
from serve_app.search.neighbours import Neighbours
from serve_app.services import Services
from serve_app.store.datasets import Datasets
from serve_app.store.listings import Listings

FORGET_S = 1.0
"""How long a deletion waits for the searcher to remove the files of sets."""

router = APIRouter(prefix="/datasets", tags=["datasets"])


def _located(what: str) -> dict[str, Any]:
    return {"Location": {"description": what, "required": True, "schema": {"type": "string"}}}


_APPLIED = {"Preference-Applied": {"required": True, "schema": {"type": "string"}}}
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {"description": "the folder is listed", "headers": _located("the dataset")}
}
_STARTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "with `Prefer: respond-async`: the job is on disk and will run",
        "model": JobStarted,
        "headers": _located("the job") | _APPLIED,
    }
}


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    responses=_CREATED | _STARTED | problems.documented(NameTaken, JobRunning, AsyncNeeded, OutsideRoots),
)
async def register_dataset(
    body: NewDataset, services: ServicesNow, context: ContextNow, response: Response, is_async: RespondAsync
) -> Dataset | Response:
    """Register a folder of images, or a COCO or manifest file, as a dataset.

    With `Prefer: respond-async` a job lists the files; the dataset appears when the job is complete.
    """
    taken = await services.writer.ask(Datasets.by_name, body.name)
    if taken is not None:  # a check before the listing spares the client a long wait
        raise NameTaken(taken.id)
    notify_url = webhook.checked(_for_jobs(body.notify_url, is_async), context.settings)
    if is_async:
        folder, file = await asyncio.to_thread(Lister(context.settings).place, body.root, body.annotations)
        job = await services.writer.ask(
            Listings.create,
            name=body.name,
            root=str(folder),
            format=body.format,
            annotations=None if file is None else str(file),
            notify_url=notify_url,
        )
        return await _started(services, job, f"Listing the images of {body.name}.")
    dataset = await registration.register(
        services.writer,
        context.settings,
        name=body.name,
        root=body.root,
        format=body.format,
        annotations=body.annotations,
    )
    if dataset.format == "bulk":  # a job imports its vectors
        await services.runner.nudge()
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


async def _started(services: Services, job: Job, message: str) -> Response:
    """The answer 202 to a job that is on disk."""
    await services.runner.nudge()
    body = JobStarted(dataset_id=job.dataset_id, message=message, job_id=job.id)
    return JSONResponse(body.model_dump(), 202, {"Location": f"/jobs/{job.id}", **APPLIED})


def _for_jobs(notify_url: str | None, is_async: bool) -> str | None:
    """The URL to tell of a job's end. Raises `InvalidRequest` where there will be no job."""
    if notify_url is not None and not is_async:
        raise InvalidRequest("notify_url tells of a job's end: send the header 'Prefer: respond-async' with it")
    return notify_url


@router.get("")
async def list_datasets(services: ServicesNow) -> list[Dataset]:
    """List every dataset, oldest first."""
    return await services.writer.ask(Datasets.all)


@router.get("/{dataset_id}", responses=problems.documented(DatasetNotFound))
async def get_dataset(dataset_id: str, services: ServicesNow) -> Dataset:
    """Get one dataset by its id."""
    return await services.writer.ask(Datasets.get, dataset_id)


@router.delete("/{dataset_id}", status_code=204, responses=problems.documented(DatasetNotFound, JobRunning))
async def delete_dataset(dataset_id: str, services: ServicesNow) -> None:
    """Delete a dataset with its samples, jobs and vectors; the image files are never touched."""
    await services.writer.ask(Datasets.delete, dataset_id)
    await forget_files(services, dataset_id)


async def forget_files(services: Services, dataset_id: str) -> None:
    """Let the searcher remove the files of sets that were deleted; those that stay go when the next set is written."""
    with suppress(ServiceError, TimeoutError):
        await asyncio.wait_for(services.searcher.ask(Neighbours.forget, dataset_id), FORGET_S)


@router.post(
    "/{dataset_id}/rescan",
    response_model=ScanChange,
    response_model_exclude_defaults=True,
    responses=_STARTED | problems.documented(DatasetNotFound, JobRunning, AsyncNeeded, OutsideRoots),
)
async def rescan_dataset(
    dataset_id: str,
    services: ServicesNow,
    context: ContextNow,
    is_async: RespondAsync,
    options: RescanOptions | None = None,
) -> ScanChange | Response:
    """List the dataset's files again; its vectors stay until the next embed job.

    With `Prefer: respond-async` a job does it, and its last message has the numbers.
    """
    notify_url = None if options is None else options.notify_url
    notify_url = webhook.checked(_for_jobs(notify_url, is_async), context.settings)
    dataset = await services.writer.ask(Datasets.get, dataset_id)
    if is_async:
        await asyncio.to_thread(Lister(context.settings).place_of, dataset)
        job = await services.writer.ask(Listings.create_rescan, dataset_id, notify_url=notify_url)
        return await _started(services, job, f"Listing the images of {dataset.name} again.")
    return await registration.rescan(services.writer, context.settings, dataset)


@router.get("/{dataset_id}/samples", responses=problems.documented(InvalidFilter, DatasetNotFound, Conflict))
async def list_samples(
    dataset_id: str,
    services: ServicesNow,
    limit: Limit = 1000,
    cursor: Cursor = None,
    where: Where = None,
    model: SetModel = None,
) -> SamplePage:
    """List a page of samples in listing order. After a rescan, cursors of pages before it get 409: begin anew."""
    items, next_cursor = await services.writer.ask(
        Datasets.samples, dataset_id, limit=limit, cursor=cursor, where=where, model=model
    )
    return SamplePage(items=items, next_cursor=next_cursor)
