"""What every route may use: the settings, the services of this replica, and what the replica keeps in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serve_app.config import Settings
from serve_app.services import Services


@dataclass(frozen=True, slots=True)
class Context:
    """One per application object.

    `find_services` is asked at each request: on Ray Serve the application is built before its replica is.
    """

    settings: Settings
    find_services: Callable[[], Services]


def context_of(request: Request) -> Context:
    """The context `create_app` stored."""
    context: Context = request.app.state.context
    return context


def services_of(request: Request) -> Services:
    """The services as of this request."""
    return context_of(request).find_services()


ContextNow = Annotated[Context, Depends(context_of)]
ServicesNow = Annotated[Services, Depends(services_of)]
