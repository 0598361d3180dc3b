"""Values that cross processes: frozen, picklable, without behaviour beyond derived properties.

Letters for shapes: N images or samples, D dimension of a vector.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import RefusedImage

VectorArray = NDArray[np.float32]
"""(N, D) float32, rows in the order of the ids beside it."""

DatasetFormat = Literal["folder", "coco", "manifest", "webdataset", "parquet"]
JobKind = Literal["embed", "reduce", "import"]
JobStatus = Literal["running", "complete", "error", "cancelled"]

TERMINAL: frozenset[str] = frozenset({"complete", "error", "cancelled"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One image of a dataset's source, from its listing to the replica that embeds it.

    `file_name` is the path below the root in the reversible spelling of `files.encode_name`, or the URL of an
    image elsewhere. `size_bytes` and `mtime_ns` are -1 when the file could not be examined; of remote files
    `mtime_ns` is whatever number changes with the content. `place` says where in a tar or Parquet file the
    image lies (`sources.reading`); None for a file of its own.

    The store adds the last two. `ordinal` is the place in the dataset's listing, -1 before it is stored.
    `known_hashes` are content hashes of vectors in the job's space whose files have the same size: a file that
    hashes to one of them needs no forward pass.
    """

    sample_id: str
    file_name: str
    label: str | None = None
    size_bytes: int = -1
    mtime_ns: int = -1
    place: str | None = None
    ordinal: int = -1
    known_hashes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Dataset:
    """A registered dataset. `root` is a real, absolute folder or a URL; `annotations` a file there or None."""

    id: str
    name: str
    root: str
    format: DatasetFormat
    annotations: str | None
    sample_count: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset, as clients see it."""

    id: str
    file_name: str
    label: str | None


@dataclass(frozen=True, slots=True)
class ScanChange:
    """What a scan changed, in samples."""

    added: int
    changed: int
    removed: int


@dataclass(frozen=True, slots=True)
class Job:
    """The public state of a job; `processed` counts committed samples, skipped and reused included.

    `seq` grows with every committed change. `rate` is samples/s over the last seconds of committed work,
    `eta_s` what is left at that rate; both None when unknown. `phase` refines `running` ("queued",
    "running", "fitting").
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


@dataclass(frozen=True, slots=True)
class Claim:
    """A job handed to a runner. `attempt` is the fence: calls with an older one are refused."""

    job: Job
    dataset: Dataset
    attempt: int
    force: bool
    params: dict[str, object]


@dataclass(frozen=True, slots=True)
class Skip:
    """Why an image or a row of a file has no vector: a stable reason code, and a detail for people.

    `sample_id` and `file_name` are empty for an image that came by itself. For a row of an imported file both are what
    the row calls its sample, until the sample is found.
    """

    sample_id: str
    file_name: str
    reason: str
    detail: str

    @classmethod
    def of(cls, error: RefusedImage, sample_id: str = "", file_name: str = "") -> "Skip":
        """The skip of an image that was refused."""
        return cls(sample_id, file_name, error.reason, error.detail)


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What was read: SHA-256 of the bytes (hex), and size and mtime of the open file."""

    content_hash: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Block:
    """One commit of a job: embedded rows, rows whose vector is already known, and skips.

    `vectors` is (len(sample_ids), D); `stamps` lies beside `sample_ids`. `known` pairs a sample with the
    stamp whose `content_hash` names a stored vector of the job's space.
    """

    sample_ids: list[str]
    vectors: VectorArray
    stamps: list[FileStamp]
    known: list[tuple[str, FileStamp]] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)

    @property
    def n_samples(self) -> int:
        """Samples this block settles."""
        return len(self.sample_ids) + len(self.known) + len(self.skips)


@dataclass(frozen=True, slots=True)
class ImportedRows:
    """One commit of an import.

    `vectors` is (len(keys), D), all usable; `points` is (len(keys), 2) float64, NaN twice where a row has no place.
    `key_column` says what the keys are.
    """

    key_column: Literal["sample_id", "file_name"]
    keys: list[str]
    vectors: VectorArray
    points: NDArray[np.float64]
    skips: list[Skip] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a loaded model is.

    `space_key` identifies the vector space: weights' fingerprint, pooling, resolution, preprocessing
    version and precision class. Vectors of different keys are never compared.
    """

    name: str
    dimension: int
    space_key: str
    device: str
    precision: str


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A sample and its cosine similarity to the query, in [-1, 1]."""

    sample_id: str
    file_name: str
    label: str | None
    score: float


@dataclass(frozen=True, slots=True)
class EmbeddingStatus:
    """Which vectors and map a dataset has now."""

    dataset_id: str
    has_embeddings: bool
    embedding_count: int
    model_name: str | None
    dimension: int | None
    space_key: str | None
    job_id: str | None
    has_reduction: bool
    sample_count: int


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """The database from outside: `jobs` by status, every status named; `file_bytes` counts the write-ahead log."""

    writer_epoch: int
    jobs: dict[JobStatus, int]
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of the database in `DATA_DIR/backups`, itself a whole database."""

    path: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VectorSet:
    """All vectors of a dataset, in sample order, with the job that made them.

    `version` is another one after every change of the vectors or of the samples. `vectors` is (N, D) float32;
    `points` is (N, 2) float64 or None before a reduction.
    """

    version: str
    job_id: str
    model_name: str
    space_key: str
    sample_ids: list[str]
    file_names: list[str]
    labels: list[str | None]
    content_hashes: list[str]
    vectors: VectorArray
    points: NDArray[np.float64] | None
