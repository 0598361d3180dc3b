"""Routes of progress: Server-Sent Events (contract, section 4)."""

from typing import Annotated, Any

from fastapi import APIRouter, Header
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api import problems
from serve_app.api.context import Context, ContextNow, ServicesNow
from serve_app.errors import DatasetNotFound, Overloaded
from serve_app.progress import Watch, has_seen_end, progress_events
from serve_app.records import JobKind
from serve_app.services import Services
from serve_app.store.datasets import Datasets
from serve_app.store.jobs import Jobs

router = APIRouter(prefix="/datasets/{dataset_id}/embeddings", tags=["progress"])

PING_S = 15
SEND_TIMEOUT_S = 20

LastEventId = Annotated[str | None, Header(max_length=200)]

_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`event: progress`, `id: <job_id>:<seq>`, ends after the terminal status",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "the terminal event named by `Last-Event-ID` is the newest: stop reconnecting"},
    **problems.documented(DatasetNotFound, Overloaded),
}


class Ping(ServerSentEvent):
    """A comment line that keeps the connection alive.

    Without the usual blank line behind it: once an event has had an `id`, httpx-sse 0.4.3 takes a comment and a
    blank line for an event without data. The next event or ping follows on a line of its own either way.
    """

    def encode(self) -> bytes:
        """The bytes on the wire."""
        return b": ping\r\n"


class ProgressStream(EventSourceResponse):
    """A stream that gives its place at the hub back however it ends."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        super().__init__(progress_events(watch), ping=PING_S, ping_message_factory=Ping, send_timeout=SEND_TIMEOUT_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._watch.close()


@router.get("/progress", response_class=EventSourceResponse, responses=_DOCUMENTED)
async def embed_progress(
    dataset_id: str, services: ServicesNow, context: ContextNow, last_event_id: LastEventId = None
) -> Response:
    """Follow the dataset's embed job; without one, `idle` and wait."""
    return await _stream(services, context, dataset_id, "embed", last_event_id)


@router.get("/reduce/progress", response_class=EventSourceResponse, responses=_DOCUMENTED)
async def reduce_progress(
    dataset_id: str, services: ServicesNow, context: ContextNow, last_event_id: LastEventId = None
) -> Response:
    """Follow the dataset's reduction; without one, `idle` and wait. `fitting` is a status of its own."""
    return await _stream(services, context, dataset_id, "reduce", last_event_id)


async def _stream(
    services: Services, context: Context, dataset_id: str, kind: JobKind, last_event_id: str | None
) -> Response:
    await services.writer.call(Datasets.get, dataset_id)
    if last_event_id is not None:
        [job] = await services.writer.call(Jobs.latest, [(dataset_id, kind)])
        if has_seen_end(job, last_event_id):
            return Response(status_code=204)
    return ProgressStream(context.progress.watch(dataset_id, kind))
