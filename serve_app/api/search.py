"""Routes that compare vectors by cosine similarity: neighbours, duplicates, outliers, a diverse choice."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, File, UploadFile
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from serve_app.api import problems
from serve_app.api.context import ServicesNow
from serve_app.api.finding_schemas import Balance, KeepChoice, KeptGroups, Labelled
from serve_app.api.plans import FILES, Format, PlanFormat, plan
from serve_app.api.sample_path import SAMPLE_ID
from serve_app.api.schemas import (
    DiverseCount,
    DuplicateGroups,
    NeighbourCount,
    NeighbourLimit,
    NeighbourList,
    SetModel,
    TextNeighbours,
    TextQuery,
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
    InvalidRequest,
    ModelUnavailable,
    NoEmbeddings,
    NoTextTower,
    Overloaded,
    SampleNotFound,
    TooLarge,
    UnknownModel,
    UnsupportedMediaType,
)
from serve_app.records import Neighbour, Skip
from serve_app.search.finding_records import Keep, Twin
from serve_app.search.findings import Findings
from serve_app.search.neighbours import Neighbours
from serve_app.services import Services
from serve_app.store.datasets import Datasets
from serve_app.store.vectors import Vectors
from serve_app.urls import is_url

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["search"])


_SCORED = {**dict.fromkeys(("sample_id", "file_name", "label"), pa.string()), "score": pa.float64()}
_LINKED = {"group": pa.int64(), **_SCORED}
_TWIN = {**_LINKED, "action": pa.string(), "reason": pa.string()}


class JsonRoute(APIRoute):
    """A route for requests whose body is JSON; a route with the same path takes the others."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `starlette.routing.Route.matches`."""
        content_type = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        return super().matches(scope) if content_type == "application/json" else (Match.NONE, {})


_ANSWERS = problems.documented(
    InvalidFilter,
    NoEmbeddings,
    DatasetNotFound,
    Conflict,
    NoTextTower,
    TooLarge,
    UnsupportedMediaType,
    InvalidImage,
    ModelUnavailable,
)
_COMPARED = problems.documented(NoEmbeddings, DatasetNotFound, Conflict, GraphNeeded, Overloaded)
"""The answers of a question about all pairs."""
_TEXT_BODY = {
    "requestBody": {
        "content": {"application/json": {"schema": TextQuery.model_json_schema(), "example": {"text": "a red tulip"}}}
    }
}


async def search_by_text(
    dataset_id: str,
    services: ServicesNow,
    query: TextQuery,
    limit: NeighbourLimit = 10,
    where: Where = None,
    model: SetModel = None,
) -> TextNeighbours:
    """Find the samples that fit words best, if the set's model has a text tower."""
    model = await model_of_set(dataset_id, services, model)
    embedded = await services.embedder.embed_texts(model, [query.text])
    [vector] = embedded.vectors
    found = await services.searcher.ask(
        Neighbours.search, dataset_id, vector, embedded.card.space_key, limit, where, model
    )
    cut = ["The text is longer than the model takes, and its end was not looked at."] if embedded.cut else []
    return TextNeighbours(items=found, notices=cut)


# FastAPI asks routes in their order, and the document describes both under the other one.
router.add_api_route(
    "/search",
    search_by_text,
    methods=["POST"],
    responses=_ANSWERS,
    include_in_schema=False,
    route_class_override=JsonRoute,
)


@router.get(
    f"/similarity/{SAMPLE_ID}",
    responses=problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, SampleNotFound, Conflict),
)
async def find_similar(
    dataset_id: str,
    sample_id: str,
    services: ServicesNow,
    limit: NeighbourLimit = 10,
    where: Where = None,
    model: SetModel = None,
) -> NeighbourList:
    """Find the samples most similar to a sample, best first, without the sample itself."""
    return NeighbourList(
        items=await services.searcher.ask(Neighbours.similar, dataset_id, sample_id, limit, where, model)
    )


@router.post("/search", responses=_ANSWERS, openapi_extra=_TEXT_BODY)
async def search_by_image(
    dataset_id: str,
    services: ServicesNow,
    file: Annotated[UploadFile, File(description="an image of at most 10 MiB")],
    limit: NeighbourLimit = 10,
    where: Where = None,
    model: SetModel = None,
) -> NeighbourList:
    """Find the samples most similar to an uploaded image, or to words (JSON `text`), best first."""
    model = await model_of_set(dataset_id, services, model)
    embedded = await services.embedder.embed_images(model, [await file.read()])
    [vector] = embedded.outcomes
    if isinstance(vector, Skip):
        raise InvalidImage(f"The image cannot be used: {vector.detail} ({vector.reason}).")
    return NeighbourList(
        items=await services.searcher.ask(
            Neighbours.search, dataset_id, vector, embedded.card.space_key, limit, where, model
        )
    )


async def model_of_set(dataset_id: str, services: Services, model: str | None = None) -> str:
    """The model of a set: the one named, or that of the set made last.

    Raises:
        NoEmbeddings: the dataset has no such set.
        Conflict: the service cannot run their model.
    """
    name = (await services.writer.ask(Vectors.current, dataset_id, model)).model_name
    try:
        await asyncio.to_thread(weights.resolve, name)
    except UnknownModel:
        raise Conflict(
            f"The vectors were imported and come from {name!r}, which this service cannot run: "
            "it can compare the dataset's own images, not uploads or words."
        ) from None
    return name


@router.get(
    "/duplicates",
    response_model=DuplicateGroups | KeptGroups,
    responses=FILES | _COMPARED | problems.documented(InvalidFilter, InvalidRequest),
)
async def find_duplicates(
    dataset_id: str,
    services: ServicesNow,
    threshold: Threshold = 0.95,
    keep: KeepChoice = None,
    where: Where = None,
    model: SetModel = None,
    format: Format = "json",
) -> DuplicateGroups | KeptGroups | Response:
    """Find groups of near-duplicates: samples linked by a cosine of at least `threshold`.

    Without `keep` links form chains. With it, each group has one sample to keep, which all others of the group are
    near-duplicates of, and says why. Above 30,000 images the links are those of the graph; `POST
    /datasets/{id}/graph` makes it.
    """
    if keep is not None:
        return await _kept(services, dataset_id, threshold, keep, where, model, format)
    found = await services.searcher.ask(Neighbours.duplicates, dataset_id, threshold, where, model)
    if format != "json":
        return await asyncio.to_thread(plan, _grouped(found.groups), _LINKED, "duplicates", format)
    return DuplicateGroups(threshold=threshold, groups=found.groups, incomplete=found.incomplete)


async def _kept(
    services: Services,
    dataset_id: str,
    threshold: float,
    keep: Keep,
    where: str | None,
    model: str | None,
    format: PlanFormat,
) -> KeptGroups | Response:
    if keep == "oldest" and is_url((await services.writer.ask(Datasets.get, dataset_id)).root):
        raise InvalidRequest("the ages of files behind a URL are not known; keep largest or first")
    found = await services.searcher.ask(Findings.kept_twins, dataset_id, threshold, keep, where, model)
    if format != "json":
        return await asyncio.to_thread(plan, _grouped(found.groups), _TWIN, "duplicates", format)
    return KeptGroups(threshold=threshold, groups=found.groups, incomplete=found.incomplete)


def _grouped(groups: Sequence[Sequence[Neighbour | Twin]]) -> Iterator[dict[str, object]]:
    """The rows of a file: the members of groups, which are numbered from 1."""
    return ({"group": n, **asdict(member)} for n, group in enumerate(groups, start=1) for member in group)


@router.get(
    "/outliers",
    response_model=NeighbourList,
    responses=FILES | _COMPARED | problems.documented(InvalidFilter, InvalidRequest),
)
async def find_outliers(
    dataset_id: str,
    services: ServicesNow,
    k: NeighbourCount = 10,
    limit: NeighbourLimit = 50,
    where: Where = None,
    model: SetModel = None,
    format: Format = "json",
) -> NeighbourList | Response:
    """Find the samples least similar to their `k` nearest neighbours; `score` is the mean similarity to them.

    Above 30,000 images the neighbours are those of the graph; `POST /datasets/{id}/graph` makes it.
    """
    found = await services.searcher.ask(Neighbours.outliers, dataset_id, k, limit, where, model)
    return await _listed(found, "outliers", format)


@router.get(
    "/diverse",
    response_model=NeighbourList,
    responses=FILES | problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, Conflict, Overloaded),
)
async def choose_diverse(
    dataset_id: str,
    services: ServicesNow,
    n: DiverseCount = 50,
    where: Where = None,
    labelled: Labelled = None,
    balance: Balance = None,
    model: SetModel = None,
    format: Format = "json",
) -> NeighbourList | Response:
    """Choose `n` samples that cover the dataset; they are returned in the order of choice.

    The choice keeps away from what `labelled` chooses, and takes turns among the values of the column `balance`.
    """
    found = await services.searcher.ask(Neighbours.diverse, dataset_id, n, where, labelled, balance, model)
    return await _listed(found, "diverse", format)


async def _listed(found: list[Neighbour], name: str, format: PlanFormat) -> NeighbourList | Response:
    if format != "json":
        return await asyncio.to_thread(plan, map(asdict, found), _SCORED, name, format)
    return NeighbourList(items=found)
