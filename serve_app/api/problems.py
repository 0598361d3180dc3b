"""Errors as `application/problem+json` (RFC 9457): one shape for every status, without internals of the server.

Validation errors name location, type and message but not the input. FastAPI's own handler repeats the input and
fails on `NaN` and lone surrogates.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from serve_app.api import dialects
from serve_app.errors import (
    GraphNeeded,
    InvalidFilter,
    InvalidRequest,
    JobRunning,
    NameTaken,
    Saturated,
    ServiceError,
    TooLarge,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
MAX_FIELD_ERRORS = 10
REQUEST_ID = "request_id"
"""The key of the ASGI scope under which `envelope.Envelope` stores the request's id."""


class FieldError(BaseModel):
    """The location and kind of an error in a request."""

    loc: list[str | int]
    type: str
    msg: str


class Problem(BaseModel):
    """The body of every error answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "No dataset has the id 'd1'.",
                "code": "dataset_not_found",
                "request_id": "0f8fad5bd9cb469fa165708867288c16",
            }
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="stable, for programs; `detail` is for people")
    request_id: str | None = None
    errors: list[FieldError] | None = Field(None, description="with 422: every value refused")
    dataset_id: str | None = Field(None, description="with `name_taken`: the dataset that has the name")
    job_id: str | None = Field(None, description="with `job_running`: the job that is running")
    position: int | None = Field(None, description="with `invalid_filter`: the character of `where`, counted from 0")
    k: int | None = Field(None, description="with `graph_needed`: the `k` to `POST …/graph` with")
    components: dict[str, str] | None = Field(None, description="with `not_ready`: the reason, by component")
    error: dialects.ErrorObject | None = Field(None, description="on `/v1/embeddings`: the same for OpenAI's clients")


def response(problem: Problem, scope: Scope, headers: dict[str, str] | None = None) -> Response:
    """Render a problem for the request it answers."""
    dialect = dialects.of_path(scope["path"])
    status = dialect.status(problem.status)
    update = {"request_id": scope.get(REQUEST_ID)} | dialect.extension(status, problem.code, problem.detail)
    if status != problem.status:
        update |= {"status": status, "title": HTTPStatus(status).phrase}
    body = problem.model_copy(update=update).model_dump(exclude_none=True)
    text = json.dumps(body, ensure_ascii=False, allow_nan=False)
    content = text.encode("utf-8", errors="replace")
    return Response(content, status, {"Cache-Control": "no-store", **(headers or {})}, MEDIA_TYPE)


def of_status(status: int, detail: str, *, code: str | None = None) -> Problem:
    """A problem with the status's own title; without `code`, the code is the status's own too."""
    meaning = HTTPStatus(status)
    if status == TooLarge.status:  # Starlette has renamed this status with the RFC; our code stays
        code = TooLarge.code
    return Problem(title=meaning.phrase, status=status, detail=detail, code=code or meaning.name.lower())


def of_service_error(error: ServiceError) -> Problem:
    """A problem for one of our errors; the id that a conflict carries becomes a separate field."""
    problem = of_status(error.status, error.detail, code=error.code)
    if isinstance(error, JobRunning):
        detail = f"Job {error.detail} of this dataset is running: wait for it or cancel it."
        return problem.model_copy(update={"detail": detail, "job_id": error.detail})
    if isinstance(error, NameTaken):
        detail = f"Dataset {error.detail} has this name: choose another one or delete it."
        return problem.model_copy(update={"detail": detail, "dataset_id": error.detail})
    if isinstance(error, InvalidFilter):
        return problem.model_copy(update={"position": error.position})
    if isinstance(error, GraphNeeded):
        return problem.model_copy(update={"k": error.k})
    return problem


def answer(error: ServiceError | HTTPException, scope: Scope) -> Response:
    """The response to an error that our code raised on purpose."""
    if isinstance(error, HTTPException) and error.status_code == Saturated.status:
        error = Saturated(error.detail)
    if isinstance(error, HTTPException):
        return response(of_status(error.status_code, error.detail), scope, dict(error.headers or {}))
    retry_after_s = dialects.of_path(scope["path"]).retry_after_s
    headers = {"Retry-After": str(retry_after_s)} if isinstance(error, Unavailable) else {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return response(of_service_error(error), scope, headers)


def of_validation(errors: Sequence[Any]) -> Problem:
    """A problem for values that FastAPI refused."""
    fields = [
        FieldError(loc=[_short(part) for part in error["loc"]], type=error["type"], msg=error["msg"])
        for error in errors[:MAX_FIELD_ERRORS]
    ]
    first = fields[0]
    detail = f"{'.'.join(map(str, first.loc))}: {first.msg}"
    if len(errors) > 1:
        detail += f" (and {len(errors) - 1} more)"
    problem = of_status(InvalidRequest.status, detail, code=InvalidRequest.code)
    return problem.model_copy(update={"errors": fields})


def _short(part: str | int) -> str | int:
    """Shorten a part of a location; for an unknown key it is the caller's own text."""
    return part[:100] if isinstance(part, str) else part


async def _on_raised(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError | HTTPException)
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error = _not_allowed(request)
    return answer(error, request.scope)


def _not_allowed(request: Request) -> HTTPException:
    """The error with every method of the path; the router lists the methods of only one route."""
    routes: list[Route] = request.app.state.routes
    fitting = [route.methods or set() for route in routes if route.path_regex.match(request.scope["path"])]
    methods = set().union(*fitting) or {"GET"}  # no route: a file of the page
    allowed = ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
    return HTTPException(405, f"This path takes {allowed}.", {"Allow": allowed})


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return response(of_validation(error.errors()), request.scope)


def install(app: FastAPI) -> None:
    """Make the application answer foreseen errors as problems; `envelope.Envelope` answers other errors."""
    app.add_exception_handler(ServiceError, _on_raised)
    app.add_exception_handler(HTTPException, _on_raised)
    app.add_exception_handler(RequestValidationError, _on_invalid)


def described(description: str) -> dict[str, Any]:
    """A response in the OpenAPI document whose body is a problem."""
    reference = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": reference}}}


ANY_PROBLEM: dict[int | str, dict[str, Any]] = {"default": described("any other problem")}
"""The entry of every route for statuses that it does not list."""


def documented(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The entries of the OpenAPI document for these errors: one response for each status, with its codes."""
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(f"`{error.code}`")
    return {status: described(" or ".join(codes)) for status, codes in by_status.items()}
