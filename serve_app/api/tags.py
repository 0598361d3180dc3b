"""Routes of tags: words on samples, put on and taken off by filter, by id, or by a region of the map."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field, StringConstraints

from serve_app.api import problems
from serve_app.api.context import ServicesNow
from serve_app.api.schemas import Body, SetModel, WhereText
from serve_app.errors import DatasetNotFound, InvalidFilter, InvalidRequest, NoEmbeddings
from serve_app.store.column_records import TagChange, ValueCount
from serve_app.store.tags import SampleChoice, Tags

router = APIRouter(prefix="/datasets/{dataset_id}/tags", tags=["columns"])

MAX_CORNERS = 1000
MAX_IDS = 4_000

Tag = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f/]+$"), Path(description="the tag")
]
_Number = Annotated[float, Field(allow_inf_nan=False)]


_Corner = Annotated[list[_Number], Field(min_length=2, max_length=2)]


class Choice(Body):
    """Which samples: those that all given parts choose."""

    where: WhereText | None = Field(
        None, description="a boolean SQL expression over the dataset's columns", examples=["label = 'rose'"]
    )
    sample_ids: Annotated[list[str], Field(max_length=MAX_IDS)] | None = None
    polygon: Annotated[list[_Corner], Field(min_length=3, max_length=MAX_CORNERS)] | None = Field(
        None, description="`[[x, y], …]` in the map's coordinates"
    )


_REFUSALS = problems.documented(InvalidRequest, InvalidFilter, NoEmbeddings, DatasetNotFound)


@router.get("", responses=problems.documented(DatasetNotFound))
async def list_tags(dataset_id: str, services: ServicesNow) -> list[ValueCount]:
    """List the dataset's tags with the number of samples that have each."""
    return await services.writer.ask(Tags.all, dataset_id)


@router.post("/{tag}", responses=_REFUSALS)
async def add_tag(
    dataset_id: str, tag: Tag, choice: Choice, services: ServicesNow, model: SetModel = None
) -> TagChange:
    """Put a tag on the chosen samples; `changed` counts those that did not have it."""
    return await services.writer.ask(Tags.add, dataset_id, tag, _record(choice, model))


@router.delete("/{tag}", responses=_REFUSALS)
async def remove_tag(
    dataset_id: str, tag: Tag, services: ServicesNow, choice: Choice | None = None, model: SetModel = None
) -> TagChange:
    """Take a tag off the chosen samples, or off all of them if there is no body."""
    return await services.writer.ask(Tags.remove, dataset_id, tag, _record(choice or Choice(), model))


def _record(choice: Choice, model: str | None) -> SampleChoice:
    polygon = None if choice.polygon is None else [(x, y) for x, y in choice.polygon]
    return SampleChoice(choice.where, choice.sample_ids, polygon, model)
