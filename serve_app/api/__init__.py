"""The HTTP interface of Constellate: `create_app` builds it from settings and a function that finds the services.

This package uses neither Ray nor SQL: all its work goes through `serve_app.services`.
"""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI

from serve_app.api import (
    columns,
    datasets,
    document,
    embeddings,
    findings,
    folders,
    graph,
    handover,
    health,
    images,
    imports,
    jobs,
    labels,
    lightly,
    openai,
    pages,
    problems,
    search,
    sprites,
    streams,
    tags,
)
from serve_app.api.context import Context
from serve_app.api.envelope import Envelope
from serve_app.api.guards import BodyGuard, Gate, Head
from serve_app.config import Settings
from serve_app.services import Services

__all__ = ["create_app"]

NOUNS = (
    datasets,
    folders,
    columns,
    tags,
    handover,
    images,
    sprites,
    embeddings,
    imports,
    streams,
    search,
    findings,
    graph,
    labels,
    jobs,
    lightly,
    openai,
    health,
    pages,
)
DESCRIPTION = "Image embeddings as a service: register a folder, generate, follow the progress, search, export."


def _with_every_noun() -> APIRouter:
    router = APIRouter(responses=problems.ANY_PROBLEM, generate_unique_id_function=lambda route: route.name)
    for noun in NOUNS:
        router.include_router(noun.router)
    return router


_ROUTER = _with_every_noun()
"""The routes, which know no application: FastAPI works each one out at its first request, for all applications."""


class _Api(FastAPI):
    """FastAPI with a complete OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """The document; it is built once."""
        if self.openapi_schema is None:
            needs_key = self.state.context.settings.api_key is not None
            document.complete(super().openapi(), needs_key=needs_key)
        return super().openapi()


def create_app(settings: Settings, find_services: Callable[[], Services]) -> FastAPI:
    """Build the application.

    Args:
        settings: limits, the API key and the default model.
        find_services: the application calls it at each request, and never while it is built.
    """
    app = _Api(
        title="Constellate",
        description=DESCRIPTION,
        # The stock documentation pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        routes=_ROUTER.routes,
    )
    app.state.context = Context(settings, find_services)
    app.state.routes = [route for noun in NOUNS for route in noun.router.routes]
    problems.install(app)
    for guard in (Head, BodyGuard, Gate, Envelope):  # the last one added is the outermost
        app.add_middleware(guard, **({"settings": settings} if guard is Gate else {}))
    app.mount("/static", pages.PageFiles(), name="static")
    return app
