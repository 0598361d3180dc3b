"""Routes that compare vectors by cosine similarity: neighbours, duplicates, outliers, a diverse choice."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, File, UploadFile

from serve_app.api import problems
from serve_app.api.context import ServicesNow
from serve_app.api.sample_path import SAMPLE_ID
from serve_app.api.schemas import (
    DiverseCount,
    DuplicateGroups,
    NeighbourCount,
    NeighbourLimit,
    NeighbourList,
    Threshold,
    Where,
)
from serve_app.embedding import weights
from serve_app.errors import (
    Conflict,
    DatasetNotFound,
    GraphNeeded,
    InvalidFilter,
    InvalidImage,
    ModelUnavailable,
    NoEmbeddings,
    SampleNotFound,
    TooLarge,
    UnknownModel,
    UnsupportedMediaType,
)
from serve_app.records import Skip
from serve_app.search.neighbours import Neighbours
from serve_app.store.vectors import Vectors

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["search"])


@router.get(
    f"/similarity/{SAMPLE_ID}",
    responses=problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, SampleNotFound),
)
async def find_similar(
    dataset_id: str, sample_id: str, services: ServicesNow, limit: NeighbourLimit = 10, where: Where = None
) -> NeighbourList:
    """Find the samples most similar to a sample, best first, without the sample itself."""
    return NeighbourList(items=await services.searcher.ask(Neighbours.similar, dataset_id, sample_id, limit, where))


@router.post(
    "/search",
    responses=problems.documented(
        InvalidFilter,
        NoEmbeddings,
        DatasetNotFound,
        Conflict,
        TooLarge,
        UnsupportedMediaType,
        InvalidImage,
        ModelUnavailable,
    ),
)
async def search_by_image(
    dataset_id: str,
    services: ServicesNow,
    file: Annotated[UploadFile, File(description="an image of at most 10 MiB")],
    limit: NeighbourLimit = 10,
    where: Where = None,
) -> NeighbourList:
    """Find the samples most similar to an uploaded image, best first."""
    status = await services.writer.ask(Vectors.status, dataset_id)
    if status.model_name is None:
        raise NoEmbeddings("No embeddings found. Generate embeddings first.")
    try:
        await asyncio.to_thread(weights.resolve, status.model_name)
    except UnknownModel:
        raise Conflict(
            f"The vectors were imported and come from {status.model_name!r}, which this service cannot run: "
            "it can compare the dataset's own images, not an upload."
        ) from None
    embedded = await services.embedder.embed_images(status.model_name, [await file.read()])
    [vector] = embedded.outcomes
    if isinstance(vector, Skip):
        raise InvalidImage(f"The image cannot be used: {vector.detail} ({vector.reason}).")
    return NeighbourList(
        items=await services.searcher.ask(Neighbours.search, dataset_id, vector, embedded.card.space_key, limit, where)
    )


@router.get("/duplicates", responses=problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, GraphNeeded))
async def find_duplicates(
    dataset_id: str, services: ServicesNow, threshold: Threshold = 0.95, where: Where = None
) -> DuplicateGroups:
    """Find groups of near-duplicates: samples linked by a cosine of at least `threshold`.

    Above 30,000 images the links are those of the graph; `POST /datasets/{id}/graph` makes it.
    """
    found = await services.searcher.ask(Neighbours.duplicates, dataset_id, threshold, where)
    return DuplicateGroups(threshold=threshold, groups=found.groups, incomplete=found.incomplete)


@router.get("/outliers", responses=problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, GraphNeeded))
async def find_outliers(
    dataset_id: str, services: ServicesNow, k: NeighbourCount = 10, limit: NeighbourLimit = 50, where: Where = None
) -> NeighbourList:
    """Find the samples least similar to their `k` nearest neighbours; `score` is the mean similarity to them.

    Above 30,000 images the neighbours are those of the graph; `POST /datasets/{id}/graph` makes it.
    """
    return NeighbourList(items=await services.searcher.ask(Neighbours.outliers, dataset_id, k, limit, where))


@router.get("/diverse", responses=problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound))
async def choose_diverse(
    dataset_id: str, services: ServicesNow, n: DiverseCount = 50, where: Where = None
) -> NeighbourList:
    """Choose `n` samples that cover the dataset; they are returned in the order of choice."""
    return NeighbourList(items=await services.searcher.ask(Neighbours.diverse, dataset_id, n, where))
