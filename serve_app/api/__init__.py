"""The HTTP face of Constellate: `create_app` builds it from settings and a way to find the services.

It knows no Ray and no SQL: everything it does goes through `serve_app.services`.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from serve_app.api import (
    datasets,
    embeddings,
    health,
    images,
    imports,
    jobs,
    lightly,
    openai,
    pages,
    problems,
    search,
    streams,
)
from serve_app.api.context import Context
from serve_app.api.envelope import Envelope
from serve_app.api.guards import BodyGuard, Gate
from serve_app.config import Settings
from serve_app.services import Services

__all__ = ["create_app"]

DESCRIPTION = "Image embeddings as a service: register a folder, generate, follow the progress, search, export."


class _Api(FastAPI):
    """FastAPI whose OpenAPI document knows the one shape of errors."""

    def openapi(self) -> dict[str, Any]:
        """The document, built once."""
        if self.openapi_schema is None:
            document = super().openapi()
            schema = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(schema.pop("$defs", {}))
            schemas["Problem"] = schema
        return super().openapi()


def create_app(settings: Settings, find_services: Callable[[], Services]) -> FastAPI:
    """Build the application.

    Args:
        settings: limits, the API key and the default model.
        find_services: called at each request, never while building.
    """
    app = _Api(
        title="Constellate",
        description=DESCRIPTION,
        # The stock documentation pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        responses=problems.ANY_PROBLEM,
    )
    app.state.context = Context(settings, find_services)
    problems.install(app)
    for guard in (BodyGuard, Gate, Envelope):  # the last one added is the outermost
        app.add_middleware(guard, **({"settings": settings} if guard is Gate else {}))
    for noun in (datasets, images, embeddings, imports, streams, search, jobs, lightly, openai, health, pages):
        app.include_router(noun.router)
    app.mount("/static", pages.PageFiles(), name="static")
    return app
