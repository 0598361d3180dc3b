"""The schemas of requests, and of those answers that are not records.

Bodies are strict: unknown keys are refused, and so is text in place of a number. An answer is the record itself
(`serve_app.records`) if clients see all its fields.
"""

import re
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator
from pydantic.json_schema import SkipJsonSchema

from serve_app.projection.reduction import Projection
from serve_app.records import Neighbour, Sample, Skip
from serve_app.search.graph_file import DEFAULT_K, MAX_K
from serve_app.sources.detection import WantedFormat
from serve_app.store.filtering import MAX_CHARACTERS

MAX_PAGE = 10_000
MAX_NEIGHBOURS = 1000


def _digits(value: object) -> object:
    """Refuse texts like `1_0` and ` 1 `, which Pydantic accepts, and numbers of more than nine digits."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError("write a whole number in at most nine digits")
    return value


def _decimal(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", value):
        raise ValueError("write a decimal number")
    return value


def _whole(value: object) -> object:
    """Accept 15.0 as a whole number, because JSON has only one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]

# The bounds come before the check of the digits, because after it they would be missing in the OpenAPI document.
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_digits), Query(description="items of a page")]
_UpTo1000 = Annotated[int, Field(ge=1, le=MAX_NEIGHBOURS), BeforeValidator(_digits)]
NeighbourLimit = Annotated[_UpTo1000, Query(description="samples to return")]
NeighbourCount = Annotated[_UpTo1000, Query(alias="k", description="neighbours to average over")]
DiverseCount = Annotated[_UpTo1000, Query(alias="n", description="samples to choose")]
Threshold = Annotated[
    float,
    Field(gt=0, le=1, allow_inf_nan=False),
    BeforeValidator(_decimal),
    Query(description="least cosine of a link"),
]
ThumbnailSize = Annotated[
    int, Field(ge=16, le=512), BeforeValidator(_digits), Query(alias="size", description="longer side in pixels")
]
# The schema of an optional value omits null, because neither a query nor a header can express null.
Cursor = Annotated[
    Annotated[str, StringConstraints(pattern="^[0-9]{1,18}-[0-9]{1,18}$")] | SkipJsonSchema[None],
    Query(description="`next_cursor` of the page before; 409 when the listing has been replaced since"),
]

WhereText = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
Where = Annotated[
    WhereText | SkipJsonSchema[None],
    Query(description="a boolean SQL expression over the dataset's columns: `label = 'cat' AND tag = 'keep'`"),
]

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f]$")]


class Body(BaseModel):
    """The base of every request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class NewDataset(Body):
    """A folder to register."""

    name: Name = Field(description="unique among datasets", examples=["flowers"])
    root: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="folder, URL (s3://, gs://, az://, hf://, a manifest at https://), tar or Parquet file under one "
        "of the service's dataset roots",
        examples=["/data/flowers"],
    )
    format: WantedFormat = "auto"
    annotations: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        None, description="COCO or manifest file under the same roots"
    )


NotifyUrl = Annotated[
    Annotated[Text, StringConstraints(min_length=1, max_length=2048)] | SkipJsonSchema[None],
    Field(description="http(s) URL below a dataset root that is told, signed, when the job ends"),
]


class GenerateOptions(Body):
    """How to embed a dataset."""

    model_name: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        None, description="a known model or a local checkpoint folder; the service's default when absent"
    )
    force: bool = Field(False, description="embed every file anew, even where its vector is known")
    notify_url: NotifyUrl = None


class ReduceOptions(Projection):
    """How to lay out the map."""

    model_config = ConfigDict(strict=True)

    notify_url: NotifyUrl = None

    _whole = field_validator("n_neighbors", "random_state", mode="before")(_whole)


class GraphOptions(Body):
    """How many neighbours the graph has."""

    k: Annotated[WholeNumber, Field(ge=1, le=MAX_K)] = Field(
        DEFAULT_K, description="neighbours of each image, without itself"
    )


class JobStarted(BaseModel):
    """An accepted job, which is on disk."""

    dataset_id: str
    status: Literal["started"] = "started"
    message: str
    job_id: str


class JobCancelled(BaseModel):
    """A cancelled job; the dataset's vectors have not changed."""

    dataset_id: str
    status: Literal["cancelled"] = "cancelled"
    message: str
    job_id: str


class SamplePage(BaseModel):
    """A page of samples in listing order."""

    items: list[Sample]
    next_cursor: str | None


class SkipPage(BaseModel):
    """A page of the images or rows that the last embed or import job skipped."""

    items: list[Skip]
    next_cursor: str | None


class NeighbourList(BaseModel):
    """Samples with a score."""

    items: list[Neighbour]


class TextQuery(Body):
    """Words to search by; a description of an image reads best."""

    text: str = Field(description="at most 10,000 characters", examples=["a dog on a beach"])


class TextNeighbours(NeighbourList):
    """Samples with their similarity to a text."""

    notices: list[str] = Field(description="what the answer does not show, such as a text that was cut")


class DuplicateGroups(BaseModel):
    """Groups of near-duplicates; each group has two or more samples."""

    threshold: float
    groups: list[list[Neighbour]]
    incomplete: int = Field(
        0,
        description="images whose every neighbour in the graph is a near-duplicate, so that there may be more; "
        "a graph with a larger `k` finds them",
    )


class Point(BaseModel):
    """One sample on the map; the keys are camel case, because map components read them unchanged."""

    sampleId: str
    x: float
    y: float
    fileName: str
    label: str | None
    thumbnailPath: str


class ProgressEvent(BaseModel):
    """The data of a progress event: the state of a job, or `idle` if there is no job."""

    status: Literal["idle", "running", "fitting", "complete", "error", "cancelled"]
    processed: int = Field(description="committed samples, skipped and reused ones included")
    total: int
    message: str
    job_id: str | None
    skipped: int
    rate: float | None = Field(description="samples a second")
    eta_s: float | None


class Alive(BaseModel):
    """The process answers and identifies itself as Constellate; clients check that before they use a port."""

    status: Literal["ok"] = "ok"
    service: Literal["constellate"] = "constellate"


class Ready(BaseModel):
    """The service can embed and write."""

    status: Literal["ready"] = "ready"
    model: str = Field(description="the model that embedded the probe image")
    warnings: list[str] = Field(description="what the database's check at opening found amiss")
