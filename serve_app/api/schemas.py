"""The schemas of requests, and of those answers that are not records, with examples.

Bodies are strict: unknown keys are refused, and so is text in place of a number. An answer is the record itself
(`serve_app.records`) if clients see all its fields. The examples are of one folder of flowers.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator
from pydantic.json_schema import SkipJsonSchema

from serve_app.projection.reduction import Projection
from serve_app.records import Dataset, EmbeddingStatus, Job, MapMade, Neighbour, Sample, ScanChange, SetStatus, Skip
from serve_app.search.finding_records import Cluster, Leak, Medoid, Mislabeled, Twin, Valued
from serve_app.search.graph_file import DEFAULT_K, MAX_K
from serve_app.sources.detection import WantedFormat
from serve_app.store.column_records import ColumnInfo, ColumnsChange, RefusedRows, TagChange, ValueCount
from serve_app.store.filtering import MAX_CHARACTERS

MAX_PAGE = 10_000
MAX_NEIGHBOURS = 1000

DATASET_ID = "0f8fad5bd9cb469fa165708867288c16"
JOB_ID = "7c9e6679f5194e0a9c1b3d2a5e8f4b60"
SAMPLE_ID = "rose/a.png"
ROOT = "/data/flowers"
SPACE = "9b1c4d0e5a6f7788"
_CREATED = datetime(2026, 3, 1, 9, 30)

RECORDS = (
    Dataset(DATASET_ID, "flowers", ROOT, "folder", annotations=None, sample_count=5, created_at=_CREATED),
    ScanChange(added=2, changed=1, removed=0),
    Sample(SAMPLE_ID, SAMPLE_ID, "rose"),
    Job(
        id=JOB_ID,
        dataset_id=DATASET_ID,
        kind="embed",
        status="complete",
        phase="complete",
        processed=5,
        skipped=1,
        reused=0,
        total=5,
        message="4 images embedded, 1 skipped",
        model_name="dinov2-base",
        attempt=1,
        seq=7,
        rate=None,
        eta_s=None,
        created_at=_CREATED,
        finished_at=datetime(2026, 3, 1, 9, 30, 4),
    ),
    Skip("tulip/broken.png", "tulip/broken.png", "unidentified", "not an image of a known format"),
    EmbeddingStatus(
        dataset_id=DATASET_ID,
        has_embeddings=True,
        embedding_count=4,
        model_name="dinov2-base",
        dimension=768,
        space_key=SPACE,
        job_id=JOB_ID,
        has_reduction=True,
        sample_count=5,
        sets=[SetStatus("dinov2-base", SPACE, 768, embedding_count=4, job_id=JOB_ID, has_reduction=True)],
        map=MapMade(fitted=4),
    ),
    Neighbour("rose/b.png", "rose/b.png", "rose", score=0.93),
    Twin("rose/b.png", "rose/b.png", "rose", 0.991, "drop", "0.991 like rose/a.png, which has more pixels"),
    Valued("rose/b.png", "rose/b.png", "test", "rose"),
    Leak(SAMPLE_ID, SAMPLE_ID, "train", Valued("rose/b.png", "rose/b.png", "test", "rose"), 0.991, False, "rose"),
    Mislabeled("tulip/c.png", "tulip/c.png", "tulip", "rose", 0.62),
    Medoid(SAMPLE_ID, SAMPLE_ID, "rose"),
    Cluster(0, 3, Medoid(SAMPLE_ID, SAMPLE_ID, "rose"), None, "rose", 0.67),
    ValueCount("rose", 2),
    ColumnInfo(
        "label", "text", False, "listing", 5, 2, [ValueCount("tulip", 3), ValueCount("rose", 2)], min=None, max=None
    ),
    RefusedRows("unknown_sample", 1, ["rose/z.png"]),
    ColumnsChange(["width"], rows=6, matched=5, refused=[RefusedRows("unknown_sample", 1, ["rose/z.png"])]),
    TagChange(changed=2, selected=2),
)
"""An example of each record that is an answer or a part of one; the OpenAPI document has it in the record's schema."""


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

# Bounds come before such a check, because after it they would be missing in the OpenAPI document.
CellSize = Annotated[int, Field(ge=16, le=128), BeforeValidator(_whole)]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE), BeforeValidator(_digits), Query(description="items of a page")]
_UpTo1000 = Annotated[int, Field(ge=1, le=MAX_NEIGHBOURS), BeforeValidator(_digits)]
NeighbourLimit = Annotated[_UpTo1000, Query(description="samples to return")]
NeighbourCount = Annotated[_UpTo1000, Query(alias="k", description="neighbours to average over")]
DiverseCount = Annotated[_UpTo1000, Query(alias="n", description="samples to choose")]
MinSize = Annotated[
    int, Field(ge=2, le=MAX_PAGE), BeforeValidator(_digits), Query(description="least samples of a cluster")
]
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
    Annotated[str, StringConstraints(pattern="^[0-9]{1,18}-[0-9]{1,18}(-[0-9a-f]{32})?$")] | SkipJsonSchema[None],
    Query(description="`next_cursor` of the page before; 409 when the listing has been replaced since"),
]

WhereText = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
Where = Annotated[
    WhereText | SkipJsonSchema[None],
    Query(
        description="a boolean SQL expression over the dataset's columns: `label = 'cat' AND tag = 'keep'`",
        examples=["label = 'tulip'"],
    ),
]

MAX_MODEL_NAME = 300
"""A query has room for so many characters beside the longest filter; see `filtering.MAX_CHARACTERS`."""
RequiredSetModel = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=4096)],
    Query(description="the model of the set, as `sets` of the status lists it", examples=["dinov2-base"]),
]
SetModel = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=MAX_MODEL_NAME)] | SkipJsonSchema[None],
    Query(
        description="the model whose set is meant, as `sets` of the status lists it; without it the set made last. "
        "A model in a folder whose name is longer is reached only as the set made last"
    ),
]

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f]$")]


class Body(BaseModel):
    """The base of every request body."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


NotifyUrl = Annotated[
    Annotated[Text, StringConstraints(min_length=1, max_length=2048)] | None,
    Field(description="http(s) URL below a dataset root that is told, signed, when the job ends"),
]


class NewDataset(Body):
    """A folder to register."""

    name: Name = Field(description="unique among datasets", examples=["flowers"])
    root: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="folder, URL (s3://, gs://, az://, hf://, a manifest at https://), tar or Parquet file under one "
        "of the service's dataset roots",
        examples=[ROOT],
    )
    format: WantedFormat = "auto"
    annotations: Annotated[Text, StringConstraints(min_length=1, max_length=4096)] | None = Field(
        None, description="COCO or manifest file under the same roots"
    )
    notify_url: NotifyUrl = None


class RescanOptions(Body):
    """Whom to tell when a rescan that is a job ends."""

    notify_url: NotifyUrl = None


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

    redraw: bool = Field(False, description="lay all images out anew, where otherwise those of the last map stay")
    notify_url: NotifyUrl = None

    _whole = field_validator("n_neighbors", "random_state", mode="before")(_whole)


class GraphOptions(Body):
    """How many neighbours the graph has."""

    k: Annotated[int, Field(ge=1, le=MAX_K), BeforeValidator(_whole)] = Field(
        DEFAULT_K, description="neighbours of each image, without itself"
    )
    notify_url: NotifyUrl = None


class JobStarted(BaseModel):
    """An accepted job, which is on disk."""

    dataset_id: str = Field(examples=[DATASET_ID])
    status: Literal["started"] = "started"
    message: str = Field(examples=["Embedding 5 images with dinov2-base."])
    job_id: str = Field(examples=[JOB_ID])


class JobCancelled(BaseModel):
    """A cancelled job; the dataset's vectors have not changed."""

    dataset_id: str = Field(examples=[DATASET_ID])
    status: Literal["cancelled"] = "cancelled"
    message: str = Field(examples=["Cancelled by request"])
    job_id: str = Field(examples=[JOB_ID])


class SamplePage(BaseModel):
    """A page of samples in listing order."""

    items: list[Sample]
    next_cursor: str | None = Field(examples=["1000", None])


class SkipPage(BaseModel):
    """A page of the images or rows that the last embed or import job skipped."""

    items: list[Skip]
    next_cursor: str | None = Field(examples=["1000", None])


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

    threshold: float = Field(examples=[0.95])
    groups: list[list[Neighbour]]
    incomplete: int = Field(
        0,
        description="images whose every neighbour in the graph is a near-duplicate, so that there may be more; "
        "a graph with a larger `k` finds them",
    )


class Point(BaseModel):
    """One sample on the map; the keys are camel case, because map components read them unchanged."""

    sampleId: str = Field(examples=[SAMPLE_ID])
    x: float = Field(examples=[4.25])
    y: float = Field(examples=[-1.5])
    fileName: str = Field(examples=[SAMPLE_ID])
    label: str | None = Field(examples=["rose"])
    thumbnailPath: str = Field(examples=[f"/datasets/{DATASET_ID}/samples/{SAMPLE_ID}/thumbnail"])


class ProgressEvent(BaseModel):
    """The data of a progress event: the state of a job, or `idle` if there is no job."""

    status: Literal["idle", "running", "fitting", "complete", "error", "cancelled"] = Field(examples=["running"])
    processed: int = Field(description="committed samples, skipped and reused ones included", examples=[3])
    total: int = Field(examples=[5])
    message: str = Field(examples=["Embedding images"])
    job_id: str | None = Field(examples=[JOB_ID])
    skipped: int = Field(examples=[1])
    rate: float | None = Field(description="samples a second", examples=[8.2])
    eta_s: float | None = Field(examples=[0.2])


class Alive(BaseModel):
    """The process answers and identifies itself as Constellate; clients check that before they use a port."""

    status: Literal["ok"] = "ok"
    service: Literal["constellate"] = "constellate"


class Ready(BaseModel):
    """The service can embed and write."""

    status: Literal["ready"] = "ready"
    model: str = Field(description="the model that embedded the probe image", examples=["dinov2-base"])
    warnings: list[str] = Field(description="what the database's check at opening found amiss", examples=[[]])
