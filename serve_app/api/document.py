"""The OpenAPI document: FastAPI derives it from the routes, and this module adds what FastAPI cannot know.

It adds the API key, the answers of the guards in front of the routes, examples of ids and records, and summaries.
A status that an operation does not list also has the shape of a problem.
"""

from typing import Any

from pydantic import TypeAdapter

from serve_app.api import problems, schemas

KEYLESS = frozenset({"/healthz"})
STORELESS = frozenset({"/healthz"})

_TAGS = {
    "datasets": "Folders of images: register, list, rescan, delete; the images themselves.",
    "columns": "What is known of each image besides its vector: columns to filter by, and tags.",
    "embeddings": "A dataset's vectors and map: make them, cancel, ask, read them all.",
    "progress": "Server-Sent Events of a running job: state, not log, and one terminal event.",
    "search": "Comparisons by cosine similarity.",
    "jobs": "What runs and what ran.",
    "LightlyStudio": "The remote-embedder protocol 1.0 of LightlyStudio.",
    "OpenAI": "Embeddings as OpenAI's clients ask for them.",
    "health": "For whoever watches the service.",
}
_IN_PATHS = {
    "dataset_id": schemas.DATASET_ID,
    "sample_id": schemas.SAMPLE_ID,
    "job_id": schemas.JOB_ID,
    "tag": "keep",
    "name": "width",
}
"""Examples of what paths name."""
_TEXT = {"schema": {"type": "string"}}
_RETRY_AFTER = {
    "Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer", "minimum": 1}}
}
_CHALLENGE = {"WWW-Authenticate": {"required": True, **_TEXT}}

_ANY = {
    400: "`bad_request`: the Host or Content-Length header is malformed, or `malformed_json`",
    401: "`unauthorized`: the service wants its API key",
    421: "`misdirected_request`: the Host header names another host",
}
_CHANGING = {403: "`forbidden`: a page of another origin asks"}
_WITH_BODY = {
    408: "`request_timeout`: the body stalled",
    413: "`too_large`: the body is over the route's limit",
    415: "`unsupported_media_type`: compressed, or of another Content-Type than the route's",
    429: "`saturated`: too many large bodies are being received",
}
_WITH_VALUES = {422: "`invalid_request`: a value is out of range or of the wrong type"}
_WITH_STORE = {503: "`store_unavailable` or another part of the service is; the same call may succeed later"}


def complete(document: dict[str, Any], *, needs_key: bool) -> None:
    """Complete FastAPI's document in place.

    Args:
        document: the document that `FastAPI.openapi` made.
        needs_key: whether the service has an API key; if not, the header is optional.
    """
    components = document.setdefault("components", {})
    known = components.setdefault("schemas", {})
    problem = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    known.update(problem.pop("$defs", {}))
    known["Problem"] = problem
    for record in schemas.RECORDS:
        known[type(record).__name__]["examples"] = [TypeAdapter(type(record)).dump_python(record, mode="json")]
    components["securitySchemes"] = {
        "ApiKey": {"type": "http", "scheme": "bearer", "description": "`CONSTELLATE_API_KEY`, where one is set"}
    }
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            operation["summary"] = operation["description"].partition(". ")[0].partition("\n")[0].rstrip(".")
            if path not in KEYLESS:
                operation["security"] = [{"ApiKey": []}] if needs_key else [{"ApiKey": []}, {}]
            _add_answers(operation, _answers_of_guards(path, method, operation))
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["example"] = _IN_PATHS[parameter["name"]]


def _answers_of_guards(path: str, method: str, operation: dict[str, Any]) -> dict[int, str]:
    """The answers that guards give before the operation is reached, and those that any operation may give."""
    answers = dict(_ANY)
    if path in KEYLESS:
        del answers[401]
    if method != "get":
        answers |= _CHANGING
    if "requestBody" in operation:
        answers |= _WITH_BODY
    if "requestBody" in operation or "parameters" in operation:
        answers |= _WITH_VALUES
    if path not in STORELESS:
        answers |= _WITH_STORE
    return answers


def _add_answers(operation: dict[str, Any], answers: dict[int, str]) -> None:
    responses = operation["responses"]
    for status, description in answers.items():
        own = responses.get(str(status), {}).get("description")
        responses[str(status)] = problems.described(f"{own}; {description}" if own else description)
    for code, headers in (("401", _CHALLENGE), ("429", _RETRY_AFTER), ("503", _RETRY_AFTER)):
        if code in responses:
            responses[code]["headers"] = headers
    operation["responses"] = dict(sorted(responses.items()))
