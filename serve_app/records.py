"""Values that cross processes: they are frozen and picklable, and have no behaviour but derived properties.

Letters for shapes: N images or samples, D dimension of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import RefusedImage

VectorArray = NDArray[np.float32]
"""(N, D) float32; the rows are in the order of the ids that come with it."""

DatasetFormat = Literal["folder", "coco", "manifest", "webdataset", "parquet", "bulk"]
JobKind = Literal["embed", "reduce", "import", "graph", "register", "rescan"]
JobStatus = Literal["running", "complete", "error", "cancelled"]
NotifyState = Literal["pending", "delivered", "failed"]

TERMINAL: frozenset[str] = frozenset({"complete", "error", "cancelled"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One image of a dataset's source; it travels from the listing to the replica that embeds it.

    `file_name` is the path below the root in the reversible spelling of `files.encode_name`, or the URL of an image
    elsewhere. `size_bytes` and `mtime_ns` are -1 if the file could not be examined. For a remote file, `mtime_ns` is a
    number that changes when the content changes. `place` is the image's place in a tar or Parquet file
    (`sources.reading`), or None if the image is a separate file. `values` is what an annotation file says of the image
    beyond its name and label, by column; it ends at registration, where it becomes columns of the dataset.

    The store adds the last two fields. `ordinal` is the position in the dataset's listing, -1 before it is stored.
    `known_hashes` are content hashes of vectors in the job's space whose files have the same size. A file whose hash is
    among them needs no forward pass.
    """

    sample_id: str
    file_name: str
    label: str | None = None
    size_bytes: int = -1
    mtime_ns: int = -1
    place: str | None = None
    ordinal: int = -1
    known_hashes: frozenset[str] = frozenset()
    values: Mapping[str, object] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A registered dataset. `root` is the real path of a folder or a URL; `annotations` is a file or URL, or None.

    Of the format `bulk`, `annotations` is the folder of the parts, and `root` is where their images lie.

    `notices` says what the last listing left out or set aside, and why.
    """

    id: str
    name: str
    root: str
    format: DatasetFormat
    annotations: str | None
    sample_count: int
    created_at: datetime
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PartsVectors:
    """Vectors in local parts that `constellate bulk` wrote: their folder, model, space, number of rows.

    `digest` changes when the parts are made from other files or by another model.
    """

    folder: str
    model_name: str
    space_key: str
    total: int
    digest: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a dataset, as clients see it."""

    id: str
    file_name: str
    label: str | None


@dataclass(frozen=True, slots=True)
class ScanChange:
    """The numbers of samples that a rescan added, changed and removed, and what it left out (`Dataset.notices`)."""

    added: int
    changed: int
    removed: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """The public state of a job; `processed` counts committed samples, including skipped and reused ones.

    `seq` grows with every committed change. `rate` is in samples/s over the last seconds of committed work, and `eta_s`
    is the remaining time at that rate; both are None if unknown. `phase` says more about a running job ("queued",
    "running", "fitting"). `notified` says whether the webhook at its end was delivered, None for a job without one, and
    `notify_detail` why not.
    """

    id: str
    dataset_id: str
    kind: JobKind
    status: JobStatus
    phase: str
    processed: int
    skipped: int
    reused: int
    total: int
    message: str
    model_name: str | None
    attempt: int
    seq: int
    rate: float | None
    eta_s: float | None
    created_at: datetime
    finished_at: datetime | None
    notified: NotifyState | None = None
    notify_detail: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that was given to a runner. The store refuses calls with an older `attempt`.

    The `dataset` of a registration is the one that it is to make: nothing is counted, and `params` has the format.
    """

    job: Job
    dataset: Dataset
    attempt: int
    force: bool
    params: dict[str, object]


@dataclass(frozen=True, slots=True)
class Skip:
    """The reason why an image or a row of a file has no vector: a stable code, and a detail for people.

    `sample_id` and `file_name` are empty for an uploaded image. For a row of an imported file, both are the row's key
    until its sample is found.
    """

    sample_id: str
    file_name: str
    reason: str
    detail: str

    @classmethod
    def of(cls, error: RefusedImage, sample_id: str = "", file_name: str = "") -> "Skip":
        """The skip for a refused image."""
        return cls(sample_id, file_name, error.reason, error.detail)


IMPORTED = "imported:"
"""How the content hash of a vector without a file begins."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """The content that was read: SHA-256 of the bytes (hex), and size and mtime of the open file.

    The hash of a vector that was imported, and so comes from no file, is `IMPORTED` and the sample's id. `width` and
    `height` are those of the upright image in pixels, and `format` is its name in lower case; they are 0 and empty if
    the header was not read.
    """

    content_hash: str
    size_bytes: int
    mtime_ns: int
    width: int = 0
    height: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """One commit of a job: embedded rows, rows whose vector is already known, and skips.

    `vectors` is (len(sample_ids), D), and `stamps` has one element per sample id. `known` pairs a sample id with a
    stamp whose `content_hash` identifies a stored vector of the job's space. `space_key` is the space of `vectors`; a
    block without vectors needs none.
    """

    sample_ids: list[str]
    vectors: VectorArray
    stamps: list[FileStamp]
    known: list[tuple[str, FileStamp]] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    space_key: str = ""

    @property
    def n_samples(self) -> int:
        """The number of samples that this block settles."""
        return len(self.sample_ids) + len(self.known) + len(self.skips)


@dataclass(frozen=True, slots=True)
class ImportedRows:
    """One commit of an import.

    `vectors` is (len(keys), D), and all of them are usable. `points` is (len(keys), 2) float64; a row without a point
    has NaN. `key_column` says whether the keys are sample ids or file names.
    """

    key_column: Literal["sample_id", "file_name"]
    keys: list[str]
    vectors: VectorArray
    points: NDArray[np.float64]
    skips: list[Skip] = field(default_factory=list)


IMAGES_ONLY = "it embeds images only"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The properties of a loaded model.

    `space_key` identifies the vector space: it depends on the weights, pooling, resolution, preprocessing version and
    precision. Vectors of different keys are never compared.
    """

    name: str
    dimension: int
    space_key: str
    device: str
    precision: str
    no_text: str = IMAGES_ONLY
    """Why the model takes no text; empty where it does."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample and its cosine similarity to the query, in [-1, 1]."""

    sample_id: str
    file_name: str
    label: str | None
    score: float


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Groups of two or more near-duplicates. `incomplete` samples may have more than the graph's neighbours."""

    groups: list[list[Neighbour]]
    incomplete: int = 0


@dataclass(frozen=True, slots=True)
class MapMade:
    """How a map was made: UMAP fitted it to `fitted` images, and `placed` came later beside those.

    `landmarks` is the number of images that were laid out before all others, and None where all were laid out at once.
    """

    fitted: int
    placed: int = 0
    landmarks: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """A map of N vectors: (N, 2) float64 points, and (N,) uint64 numbers of their contents, if those are known.

    `stayed` is how many points are those of an earlier map. `note` ends the message of the job.
    """

    points: NDArray[np.float64]
    contents: NDArray[np.uint64] | None = None
    stayed: int = 0
    made: MapMade | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LastMap:
    """The map of a set, or the one from before it: its job, the parameters of that job, and how many points it has."""

    job_id: str
    params: dict[str, Any]
    count: int
    made: MapMade | None


@dataclass(frozen=True, slots=True)
class SetStatus:
    """A current set of vectors and whether it has a map; a dataset has at most one for each model."""

    model_name: str
    space_key: str
    dimension: int
    embedding_count: int
    job_id: str
    has_reduction: bool


@dataclass(frozen=True, slots=True)
class EmbeddingStatus:
    """The present state of one set and its map; `sets` has all sets of the dataset, the one made last first."""

    dataset_id: str
    has_embeddings: bool
    embedding_count: int
    model_name: str | None
    dimension: int | None
    space_key: str | None
    job_id: str | None
    has_reduction: bool
    sample_count: int
    map: MapMade | None = None
    sets: list[SetStatus] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """Figures of the database: `jobs` has the number for every status; `file_bytes` includes the write-ahead log."""

    writer_epoch: int
    jobs: dict[JobStatus, int]
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the database in `DATA_DIR/backups`; the copy is a complete database."""

    path: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VectorSet:
    """One version of a dataset's vectors; the rows are read page by page.

    `scan_no` counts the rescans of the dataset: each may hide vectors or show hidden ones. `count` is the number of
    the dataset's present samples that have a vector.
    """

    dataset_id: str
    job_id: str
    scan_no: int
    model_name: str
    space_key: str
    dimension: int
    count: int

    @property
    def version(self) -> str:
        """A text that changes whenever the vectors or the samples change; no text is used twice."""
        return f"{self.job_id}-{self.scan_no}"
