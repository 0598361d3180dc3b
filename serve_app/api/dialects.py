"""How error answers differ on the routes of foreign protocols."""

from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel


class ErrorObject(BaseModel):
    """An error in the form that OpenAI's clients read; their JavaScript client shows nothing else."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: str
    param: None = None


class Dialect(NamedTuple):
    """`malformed` is the status that replaces 415 and 422 on the protocol's routes; None keeps them."""

    malformed: int | None = None
    retry_after_s: int = 2
    has_error_object: bool = False

    def status(self, status: int) -> int:
        """The status that this dialect answers in place of one of ours."""
        is_malformed = status in (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)
        return self.malformed if self.malformed is not None and is_malformed else status

    def extension(self, status: int, code: str, detail: str) -> dict[str, Any]:
        """The fields that this dialect adds to a problem."""
        if not self.has_error_object:
            return {}
        blame: Literal["invalid_request_error", "server_error"] = (
            "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
        )
        return {"error": ErrorObject(message=detail, type=blame, code=code)}


OURS = Dialect()
_LIGHTLY = Dialect(malformed=HTTPStatus.BAD_REQUEST, retry_after_s=5)
_DIALECTS = {
    "/v1/describe": _LIGHTLY,
    "/v1/embed/images/bytes": _LIGHTLY,
    "/v1/embed/texts": _LIGHTLY,
    "/v1/embeddings": Dialect(has_error_object=True),
    "/v1/models": Dialect(has_error_object=True),
}


def of_path(path: str) -> Dialect:
    """The dialect of a request's path."""
    return _DIALECTS.get(path, OURS)
