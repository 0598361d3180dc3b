"""What every route may use: the settings, the services of this replica, and the replica's state in memory."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from serve_app.api.image_queue import ImageQueue, Visit
from serve_app.api.progress_hub import ProgressHub
from serve_app.api.readiness import Readiness
from serve_app.api.request_embedder import RequestEmbedder
from serve_app.api.served_model import ServedModel
from serve_app.config import Settings
from serve_app.images.thumbnails import ThumbnailCache
from serve_app.services import Services
from serve_app.sources.reading import Reader


@dataclass(slots=True)
class Context:
    """The context of one application object.

    `find_services` is called at each request, because Ray Serve builds the application before its replica.
    """

    settings: Settings
    find_services: Callable[[], Services]
    progress: ProgressHub = field(init=False)
    readiness: Readiness = field(init=False)
    served_model: ServedModel = field(init=False)
    request_embedder: RequestEmbedder = field(init=False)
    reader: Reader = field(init=False)
    thumbnails: ThumbnailCache = field(init=False)
    image_queue: ImageQueue = field(init=False)
    thumbnail_queue: ImageQueue = field(init=False)

    def __post_init__(self) -> None:
        self.progress = ProgressHub(self.find_services)
        self.readiness = Readiness(self.find_services)
        self.served_model = ServedModel(self.find_services)
        self.request_embedder = RequestEmbedder(self.find_services)
        self.reader = Reader(self.settings)
        self.thumbnails = ThumbnailCache(self.settings.data_dir / "thumbnails")
        self.image_queue = ImageQueue("image")
        self.thumbnail_queue = ImageQueue("thumbnail")


def context_of(request: Request) -> Context:
    """The context that `create_app` stored in the application."""
    context: Context = request.app.state.context
    return context


def services_of(request: Request) -> Services:
    """The services to use for this request."""
    return context_of(request).find_services()


async def _image_visit(request: Request) -> AsyncIterator[Visit]:
    async for visit in context_of(request).image_queue.entered(request):
        yield visit


async def _thumbnail_visit(request: Request) -> AsyncIterator[Visit]:
    async for visit in context_of(request).thumbnail_queue.entered(request):
        yield visit


ContextNow = Annotated[Context, Depends(context_of)]
ServicesNow = Annotated[Services, Depends(services_of)]
ImageVisit = Annotated[Visit, Depends(_image_visit)]
ThumbnailVisit = Annotated[Visit, Depends(_thumbnail_visit)]
