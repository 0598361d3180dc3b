"""The errors of Constellate, one small tree.

    ServiceError 500
    ├── InvalidRequest 422
    │   ├── MalformedJson 400
    │   ├── UnknownModel 422
    │   ├── InvalidFilter 422
    │   ├── InvalidImage 422
    │   │   └── RefusedImage 422
    │   └── NoEmbeddings 400
    ├── Unauthorized 401
    ├── OutsideRoots 403
    ├── NotFound 404
    │   ├── DatasetNotFound · SampleNotFound · JobNotFound
    ├── Conflict 409
    │   ├── NameTaken · JobRunning · NothingRunning · StaleAttempt · ModelReplaced
    │   └── GraphNeeded · NoTextTower · AsyncNeeded
    ├── TooLarge 413
    ├── UnsupportedMediaType 415
    ├── Unavailable 503 (+ Retry-After)
    │   ├── StoreUnavailable · ModelUnavailable · RootUnavailable · WorkerCrashed
    │   └── Overloaded
    │       └── Saturated 429
    └── DiskFull 507

Each class has an HTTP status and a stable code. The message is written for the caller, who receives it, so it never
holds SQL, a stack, or a path outside the dataset. Errors cross Ray actors by pickling, so every error is built from a
single message string and no class has its own `__init__` (ray#20830).
"""

from typing import ClassVar


class ServiceError(Exception):
    """An error whose message may be shown to the caller."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    @property
    def detail(self) -> str:
        """The message from which the error was built."""
        return str(self.args[0]) if self.args else self.code


class InvalidRequest(ServiceError):
    """A value is out of range, of the wrong type, or names something that cannot be used."""

    status = 422
    code = "invalid_request"


class MalformedJson(InvalidRequest):
    """The body is not strict JSON: it has a syntax error, `NaN`, `1e400` or a duplicate key."""

    status = 400
    code = "malformed_json"


class UnknownModel(InvalidRequest):
    """The model name is neither a known name nor a folder with a checkpoint, or no job with it could succeed."""

    code = "unknown_model"


class InvalidFilter(InvalidRequest):
    """A `where` is no filter over the dataset's columns; the error is built from one string, `"<position>: <why>"`."""

    code = "invalid_filter"

    @property
    def position(self) -> int:
        """The character of the filter at which it goes wrong, counted from 0."""
        place = str(self).partition(": ")[0]
        return int(place) if place.isdecimal() else 0

    @property
    def detail(self) -> str:
        """The place and the explanation for people."""
        return f"where, character {self}"


class InvalidImage(InvalidRequest):
    """An uploaded image cannot be decoded or breaks a limit."""

    code = "invalid_image"


class RefusedImage(InvalidImage):
    """An image gets no vector; the error is built from one string, `"<reason>: <detail>"`."""

    @property
    def reason(self) -> str:
        """The stable code before the colon."""
        return str(self).partition(": ")[0]

    @property
    def detail(self) -> str:
        """The explanation for people, after the colon."""
        return str(self).partition(": ")[2]


class NoEmbeddings(InvalidRequest):
    """The operation needs vectors and the dataset has none."""

    status = 400
    code = "no_embeddings"


class Unauthorized(ServiceError):
    """The API key is missing or wrong."""

    status = 401
    code = "unauthorized"


class OutsideRoots(ServiceError):
    """A path is not below a configured dataset root; the answer does not show whether the path exists."""

    status = 403
    code = "outside_roots"


class NotFound(ServiceError):
    """The resource does not exist."""

    status = 404
    code = "not_found"


class DatasetNotFound(NotFound):
    """No dataset has this id."""

    code = "dataset_not_found"


class SampleNotFound(NotFound):
    """The dataset has no such sample, or its file is gone."""

    code = "sample_not_found"


class JobNotFound(NotFound):
    """No job has this id."""

    code = "job_not_found"


class Conflict(ServiceError):
    """The state of the resource forbids the operation now."""

    status = 409
    code = "conflict"


class NameTaken(Conflict):
    """A dataset of this name exists; the message is the dataset's id."""

    code = "name_taken"


class JobRunning(Conflict):
    """A job of the dataset is running; the message is the job's id."""

    code = "job_running"


class NothingRunning(Conflict):
    """No job is running that could be cancelled."""

    code = "nothing_running"


class StaleAttempt(Conflict):
    """The job is over or a newer attempt has claimed it, so the caller must stop working on it."""

    code = "stale_attempt"


class GraphNeeded(Conflict):
    """The set is too large to answer while the caller waits; the error is built from one string, `"<k>: <why>"`."""

    code = "graph_needed"

    @property
    def k(self) -> int:
        """How many neighbours the graph must have that would do."""
        k = str(self).partition(": ")[0]
        return int(k) if k.isdecimal() else 0

    @property
    def detail(self) -> str:
        """The explanation for people, after the colon."""
        return str(self).partition(": ")[2]


class ModelReplaced(Conflict):
    """A replica made vectors with other weights or another precision than the job began with."""

    code = "model_replaced"


class NoTextTower(Conflict):
    """The model has no text tower, or its tokenizer is missing, so that words cannot be compared with its vectors."""

    code = "no_text_tower"


class AsyncNeeded(Conflict):
    """There is more to list than a client may wait for; a job does it."""

    code = "async_needed"


class TooLarge(ServiceError):
    """The body or an image in it is over a limit."""

    status = 413
    code = "too_large"


class UnsupportedMediaType(ServiceError):
    """The content type or image format is not accepted."""

    status = 415
    code = "unsupported_media_type"


class Unavailable(ServiceError):
    """The service cannot do this now; the same call may succeed later."""

    status = 503
    code = "unavailable"


class StoreUnavailable(Unavailable):
    """The database cannot be opened or written; the message says why."""

    code = "store_unavailable"


class ModelUnavailable(Unavailable):
    """The model's weights cannot be found or loaded; the message names the ways to get them."""

    code = "model_unavailable"


class RootUnavailable(Unavailable):
    """The folder of a dataset is gone or cannot be reached."""

    code = "root_unavailable"


class Overloaded(Unavailable):
    """A queue or a stream limit is full."""

    code = "overloaded"


class Saturated(Overloaded):
    """This process already embeds as many images, or receives as many bytes of bodies, as it may."""

    status = 429
    code = "saturated"


class WorkerCrashed(Unavailable):
    """The process that ran the call died; the call may or may not be the cause."""

    code = "worker_crashed"


class DiskFull(ServiceError):
    """The disk of the database has no room for the vectors that the job would add."""

    status = 507
    code = "disk_full"
