"""Routes of datasets: register a folder, list, rescan, delete."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response

from serve_app.api import problems, registration
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.schemas import Cursor, Limit, NewDataset, SamplePage, Where
from serve_app.errors import Conflict, DatasetNotFound, InvalidFilter, JobRunning, NameTaken, OutsideRoots, ServiceError
from serve_app.records import Dataset, ScanChange
from serve_app.search.neighbours import Neighbours
from serve_app.store.datasets import Datasets

FORGET_S = 1.0
"""How long a deletion waits for the searcher to remove the dataset's files."""

router = APIRouter(prefix="/datasets", tags=["datasets"])


_LOCATION: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "the folder is listed",
        "headers": {"Location": {"description": "the dataset", "required": True, "schema": {"type": "string"}}},
    }
}


@router.post("", status_code=201, responses=_LOCATION | problems.documented(NameTaken, OutsideRoots))
async def register_dataset(body: NewDataset, services: ServicesNow, context: ContextNow, response: Response) -> Dataset:
    """Register a folder of images, or a COCO or manifest file, as a dataset."""
    taken = await services.writer.ask(Datasets.by_name, body.name)
    if taken is not None:  # a check before the listing spares the client a long wait
        raise NameTaken(taken.id)
    dataset = await registration.register(
        services.writer,
        context.settings,
        name=body.name,
        root=body.root,
        format=body.format,
        annotations=body.annotations,
    )
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


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
    with suppress(ServiceError, TimeoutError):  # what stays goes when the next set is written
        await asyncio.wait_for(services.searcher.ask(Neighbours.forget, dataset_id), FORGET_S)


@router.post(
    "/{dataset_id}/rescan",
    response_model_exclude_defaults=True,
    responses=problems.documented(DatasetNotFound, JobRunning, OutsideRoots),
)
async def rescan_dataset(dataset_id: str, services: ServicesNow, context: ContextNow) -> ScanChange:
    """List the dataset's files again; its vectors stay until the next embed job."""
    dataset = await services.writer.ask(Datasets.get, dataset_id)
    return await registration.rescan(services.writer, context.settings, dataset)


@router.get("/{dataset_id}/samples", responses=problems.documented(InvalidFilter, DatasetNotFound, Conflict))
async def list_samples(
    dataset_id: str, services: ServicesNow, limit: Limit = 1000, cursor: Cursor = None, where: Where = None
) -> SamplePage:
    """List a page of samples in listing order. After a rescan, cursors of pages before it get 409: begin anew."""
    items, next_cursor = await services.writer.ask(
        Datasets.samples, dataset_id, limit=limit, cursor=cursor, where=where
    )
    return SamplePage(items=items, next_cursor=next_cursor)
