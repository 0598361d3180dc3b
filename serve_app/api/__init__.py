"""The HTTP face of Constellate: `create_app` builds it from settings and a way to find the services.

It knows no Ray and no SQL: everything it does goes through `serve_app.services`.
"""

from collections.abc import Callable

from fastapi import FastAPI

from serve_app.api.context import Context
from serve_app.config import Settings
from serve_app.services import Services

__all__ = ["create_app"]


def create_app(settings: Settings, find_services: Callable[[], Services]) -> FastAPI:
    """Build the application.

    Args:
        settings: limits, the API key and the default model.
        find_services: called at each request, never while building.
    """
    app = FastAPI(title="Constellate")
    app.state.context = Context(settings, find_services)
    return app
