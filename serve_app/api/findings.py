"""Routes of findings: what to act on in a dataset. Each answers with JSON or a plan to save; no file is touched."""

import asyncio
from dataclasses import asdict
from datetime import datetime

import pyarrow as pa
from fastapi import APIRouter
from starlette.responses import Response

from serve_app.api import problems
from serve_app.api.context import ServicesNow
from serve_app.api.finding_schemas import (
    ClusterColumn,
    ClusterList,
    ColumnName,
    LeakList,
    MislabeledList,
    PhraseChoice,
)
from serve_app.api.labels import LabelOptions, phrase_vectors
from serve_app.api.plans import FILES, Format, file_of, plan
from serve_app.api.schemas import Limit, MinSize, SetModel, Threshold, Where
from serve_app.api.search import model_of_set
from serve_app.errors import (
    Conflict,
    DatasetNotFound,
    GraphNeeded,
    InvalidFilter,
    InvalidRequest,
    ModelUnavailable,
    NoEmbeddings,
    NoTextTower,
    Overloaded,
    Unavailable,
)
from serve_app.jobs import column_file
from serve_app.search import clustering, label_doubts
from serve_app.search.finding_records import Clusters, Leak, Phrases, Value
from serve_app.search.findings import Findings
from serve_app.services import Services
from serve_app.store.columns import Columns

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["search"])

_PROBLEMS = problems.documented(InvalidFilter, NoEmbeddings, DatasetNotFound, Conflict, GraphNeeded, Overloaded)
_TWIN = {"sample_id": pa.string(), "file_name": pa.string(), "value": pa.string()}
_LEAK = {**_TWIN, **{f"twin_{name}": kind for name, kind in _TWIN.items()}, "score": pa.float64(), "exact": pa.bool_()}
_MISLABELED = {
    **dict.fromkeys(("sample_id", "file_name", "label", "suggested_label"), pa.string()),
    "score": pa.float64(),
}


@router.get("/leaks", response_model=LeakList, responses=FILES | _PROBLEMS)
async def find_leaks(
    dataset_id: str,
    services: ServicesNow,
    column: ColumnName = "split",
    threshold: Threshold = 0.95,
    where: Where = None,
    model: SetModel = None,
    format: Format = "json",
) -> LeakList | Response:
    """Find twins with different values of a column, such as test images that are in the training split too.

    Exact copies come first, then by cosine; each sample is there with its best twin, and a pair once.
    """
    found = await services.searcher.ask(Findings.leaks, dataset_id, column, threshold, where, model)
    if format != "json":
        return await asyncio.to_thread(plan, map(_leak_row, found.items), _LEAK, "leaks", format)
    return LeakList(column=column, threshold=threshold, incomplete=found.incomplete, items=found.items)


@router.get("/mislabeled", response_model=MislabeledList, responses=FILES | _PROBLEMS)
async def find_mislabeled(
    dataset_id: str,
    services: ServicesNow,
    limit: Limit = 100,
    where: Where = None,
    model: SetModel = None,
    format: Format = "json",
) -> MislabeledList | Response:
    """Find samples whose labels the vectors speak against, the most doubtful first; `method` says how.

    Samples without a label have no say and are not listed.
    """
    found = await services.searcher.ask(Findings.mislabeled, dataset_id, limit, where, model)
    if format != "json":
        return await asyncio.to_thread(plan, map(asdict, found), _MISLABELED, "mislabeled", format)
    return MislabeledList(method=label_doubts.METHOD, items=found)


_NAMED = problems.documented(InvalidRequest, NoTextTower, ModelUnavailable, Unavailable)


@router.get("/clusters", response_model=ClusterList, responses=FILES | _PROBLEMS | _NAMED)
async def find_clusters(
    dataset_id: str,
    services: ServicesNow,
    min_size: MinSize = 5,
    phrases: PhraseChoice = None,
    where: Where = None,
    model: SetModel = None,
    format: Format = "json",
) -> ClusterList | Response:
    """Find dense groups of samples, the largest first; `method` says how.

    With `phrases`, each has the one that most of its samples fit best as its `name`, if the set's model has a text
    tower. A file has the number of the cluster, and its name, for each sample that belongs to one.
    """
    found = await _clusters(services, dataset_id, min_size, phrases, where, model, with_members=format != "json")
    if found.members is not None:
        return await asyncio.to_thread(file_of, found.members, "clusters", format)
    return ClusterList(method=_method(phrases), noise=found.noise, items=found.items)


@router.post("/clusters", responses=_PROBLEMS | _NAMED)
async def put_clusters(
    dataset_id: str,
    services: ServicesNow,
    column: ColumnName = "cluster",
    min_size: MinSize = 5,
    phrases: PhraseChoice = None,
    where: Where = None,
    model: SetModel = None,
) -> ClusterColumn:
    """Put the number of each sample's cluster into a column, which filters and colours can name: `cluster = '3'`.

    The column replaces one of the name. Samples that belong to no cluster have no value. `phrases` name the clusters of
    the answer alone.
    """
    column_file.require_free_name(column)
    found = await _clusters(services, dataset_id, min_size, phrases, where, model, with_members=True)
    if found.members is None or not len(found.members):
        await services.writer.ask(Columns.remove, dataset_id, column)
    else:
        numbers = found.members.column("cluster").cast(pa.string())
        table = pa.table({"sample_id": found.members.column("sample_id"), column: numbers})
        await services.writer.ask(Columns.put, dataset_id, (await asyncio.to_thread(column_file.of_table, table)).given)
    return ClusterColumn(method=_method(phrases), noise=found.noise, items=found.items, column=column)


async def _clusters(
    services: Services,
    dataset_id: str,
    min_size: int,
    phrases: list[str] | None,
    where: str | None,
    model: str | None,
    *,
    with_members: bool,
) -> Clusters:
    """The clusters, named by phrases where there are some."""
    names: Phrases | None = None
    if phrases is not None:
        words = list(dict.fromkeys(phrases))
        if len(words) < 2:
            raise InvalidRequest("a choice of names needs two phrases that differ")
        model = await model_of_set(dataset_id, services, model)
        vectors, space_key, cut = await phrase_vectors(services, model, LabelOptions(phrases=words))
        if cut:
            raise InvalidRequest(f"{cut[0]!r} is longer than the model takes; shorten it")
        names = Phrases(words, vectors, space_key)
    return await services.searcher.ask(
        Findings.clusters, dataset_id, min_size, where, model, with_members=with_members, phrases=names
    )


def _method(phrases: list[str] | None) -> str:
    return clustering.METHOD if phrases is None else f"{clustering.METHOD}; {clustering.NAMING}"


def _leak_row(leak: Leak) -> dict[str, object]:
    twin = {f"twin_{name}": value for name, value in asdict(leak.twin).items()}
    row = {**asdict(leak), **twin}
    return row | {name: _text(row[name]) for name in ("value", "twin_value")}


def _text(value: Value) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
