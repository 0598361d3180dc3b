"""The typed answers of the HTTP API: dictionaries with the fields that clients use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

TERMINAL = frozenset({"complete", "error", "cancelled"})
JobKind = Literal["embed", "reduce", "import", "graph", "register", "rescan"]


LISTING: frozenset[JobKind] = frozenset({"register", "rescan"})
"""The kinds of jobs that list files; `total` is 0 until they end."""


@dataclass(frozen=True, slots=True)
class Started:
    """A listing that was begun for a dataset; `job_id` is None if the service has already listed everything."""

    dataset_id: str
    job_id: str | None


class DatasetInfo(TypedDict):
    """A dataset, as `GET /datasets` lists it."""

    id: str
    name: str
    root: str
    format: str
    annotations: str | None
    sample_count: int
    notices: NotRequired[list[str]]
    """What the last listing left out, and why."""


class JobInfo(TypedDict):
    """A job, as `GET /jobs` lists it."""

    id: str
    dataset_id: str
    kind: JobKind
    status: str
    processed: int
    skipped: int
    total: int
    message: str
    model_name: str | None
    created_at: str
    finished_at: str | None
    notified: NotRequired[str | None]
    notify_detail: NotRequired[str | None]


class SetInfo(TypedDict):
    """A set of vectors; a dataset has at most one for each model."""

    model_name: str
    embedding_count: int
    has_reduction: bool


class MapInfo(TypedDict):
    """How a map was made: images fitted by UMAP, images placed beside them later, and landmarks of a large one."""

    fitted: int
    placed: int
    landmarks: int | None


class EmbeddingsInfo(TypedDict):
    """The state of one set of vectors and its map; `sets` has all sets of the dataset, the one made last first."""

    dataset_id: str
    has_embeddings: bool
    embedding_count: int
    model_name: str | None
    has_reduction: bool
    sets: list[SetInfo]
    map: NotRequired[MapInfo | None]


class SkipInfo(TypedDict):
    """An image or row that the last embed or import job skipped."""

    sample_id: str
    file_name: str
    reason: str
    detail: str


class NeighbourInfo(TypedDict):
    """A sample with its score, a cosine in [-1, 1]."""

    sample_id: str
    file_name: str
    label: str | None
    score: float


class TwinInfo(NeighbourInfo):
    """A sample of a group of near-duplicates: `action` is "keep" or "drop", and `reason` says why."""

    action: str
    reason: str


class ValuedInfo(TypedDict):
    """A sample with its value of a column."""

    sample_id: str
    file_name: str
    value: str | float | bool
    label: str | None


class LeakInfo(ValuedInfo):
    """A sample with a twin of another value; `exact` says that both files have the same bytes."""

    twin: ValuedInfo
    score: float
    exact: bool


class MislabeledInfo(TypedDict):
    """A sample whose label is doubtful; `score` is how much more likely the suggested one is, in (0, 1]."""

    sample_id: str
    file_name: str
    label: str
    suggested_label: str
    score: float


class MedoidInfo(TypedDict):
    """The sample in the middle of a cluster, with its own label."""

    sample_id: str
    file_name: str
    label: str | None


class ClusterInfo(TypedDict):
    """A dense group of samples; `label` is the most frequent one, and `share` how much of the cluster has it.

    `name` is the phrase that most of its samples fit best, `name_share` how many do; None without phrases.
    """

    cluster: int
    size: int
    medoid: MedoidInfo
    name: str | None
    label: str | None
    share: float | None
    name_share: float | None


class ClustersInfo(TypedDict):
    """Clusters, the largest first, and the number of samples in none."""

    method: str
    noise: int
    items: list[ClusterInfo]


class SampleInfo(TypedDict):
    """An image of a dataset."""

    id: str
    file_name: str
    label: str | None


class ColumnInfo(TypedDict):
    """A column of a dataset: the number of samples with a value, the most frequent values of text, or the range."""

    name: str
    type: str
    is_stored: bool
    origin: str
    count: int
    distinct: int
    values: list[dict[str, Any]]
    min: float | str | None
    max: float | str | None


class PointInfo(TypedDict):
    """A sample's point on the map."""

    sampleId: str
    x: float
    y: float
    fileName: str
    label: str | None
    thumbnailPath: str


@dataclass(frozen=True, slots=True)
class Progress:
    """One state of a job.

    `rate` is in images/s and `eta_s` in seconds; both are None if unknown. `event_id` identifies the state in a stream.
    """

    job_id: str
    status: str
    processed: int
    total: int
    skipped: int
    message: str
    rate: float | None = None
    eta_s: float | None = None
    event_id: str = ""

    @property
    def is_terminal(self) -> bool:
        """Whether the job is over."""
        return self.status in TERMINAL

    @classmethod
    def of(cls, state: Mapping[str, Any], *, event_id: str = "") -> "Progress":
        """Read the `data` of a stream's event, or a job (whose id is in `id`)."""
        return cls(
            job_id=str(state.get("job_id") or state.get("id") or ""),
            status=str(state["status"]),
            processed=int(state["processed"]),
            total=int(state["total"]),
            skipped=int(state.get("skipped") or 0),
            message=str(state.get("message") or ""),
            rate=state.get("rate"),
            eta_s=state.get("eta_s"),
            event_id=event_id,
        )
