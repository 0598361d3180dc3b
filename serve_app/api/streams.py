"""Routes of progress: Server-Sent Events, as docs/api.md describes them."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve_app.api import problems
from serve_app.api.context import Context, ContextNow, ServicesNow
from serve_app.api.departures import until_gone
from serve_app.api.progress_hub import Watch, has_seen_end, progress_events
from serve_app.api.schemas import JOB_ID, ProgressEvent
from serve_app.errors import DatasetNotFound, NotFound, Overloaded
from serve_app.records import JobKind
from serve_app.services import Services
from serve_app.store.datasets import Datasets
from serve_app.store.jobs import Jobs

router = APIRouter(prefix="/datasets/{dataset_id}/embeddings", tags=["progress"])

LastEventId = Annotated[Annotated[str, Field(max_length=200)] | SkipJsonSchema[None], Header()]

_EVENT = {
    "title": "ProgressEvent",
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"const": "progress"},
        "id": {"type": "string", "pattern": "^[^:]+:[0-9]+$"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": ProgressEvent.model_json_schema(),
        },
    },
    "examples": [
        {
            "event": "progress",
            "id": f"{JOB_ID}:7",
            "data": '{"status": "complete", "processed": 5, "total": 5, "message": "4 images embedded, 1 skipped", '
            f'"job_id": "{JOB_ID}", "skipped": 1, "rate": null, "eta_s": null}}',
        }
    ],
}
"""The schema of one event. OpenAPI 3.1 cannot describe streams; readers of 3.1 and 3.2 look for the schema here."""


def documented(not_found: type[NotFound]) -> dict[int | str, dict[str, Any]]:
    """The answers of a route that streams, for the OpenAPI document."""
    return {
        200: {
            "description": "`event: progress`, `id: <job_id>:<seq>`, ends after the terminal status",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "the terminal event named by `Last-Event-ID` is the newest: stop reconnecting"},
        **problems.documented(not_found, Overloaded),
    }


DOCUMENTED = documented(DatasetNotFound)


class ProgressStream(Response):
    """A stream that takes its place at the hub when it is served, and frees it however the stream ends.

    If the client leaves before the response is served, the stream has not taken a place yet. Each stream has only two
    tasks, because on Serve each task waits in two processes, and there are hundreds of streams.
    """

    media_type = "text/event-stream"

    def __init__(self, open_watch: Callable[[], Watch]) -> None:
        self._open_watch = open_watch
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream until the job ends or the client leaves.

        Raises:
            Overloaded: too many streams are open; nothing was sent.
        """
        watch = self._open_watch()
        client = asyncio.create_task(_close_when_gone(watch, receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for event in progress_events(watch):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            client.cancel()
            watch.close()


async def _close_when_gone(watch: Watch, receive: Receive) -> None:
    await until_gone(receive)
    watch.close()


@router.get("/progress", response_class=Response, responses=DOCUMENTED)
async def follow_embedding(
    dataset_id: str, services: ServicesNow, context: ContextNow, last_event_id: LastEventId = None
) -> Response:
    """Follow the dataset's embed or import job; without a job, the stream sends `idle` and waits."""
    return await stream(services, context, dataset_id, "embed", last_event_id)


@router.get("/reduce/progress", response_class=Response, responses=DOCUMENTED)
async def follow_reduction(
    dataset_id: str, services: ServicesNow, context: ContextNow, last_event_id: LastEventId = None
) -> Response:
    """Follow the dataset's reduce job; without a job, the stream sends `idle` and waits. `fitting` is a status here."""
    return await stream(services, context, dataset_id, "reduce", last_event_id)


async def stream(
    services: Services, context: Context, dataset_id: str, kind: JobKind, last_event_id: str | None
) -> Response:
    """The stream of a dataset's jobs of this kind. Raises `DatasetNotFound`, and `Overloaded` once it is served."""
    await services.writer.ask(Datasets.get, dataset_id)
    if last_event_id is not None:
        [job] = await services.writer.ask(Jobs.latest, [(dataset_id, kind)])
        if has_seen_end(job, last_event_id):
            return Response(status_code=204)
    return ProgressStream(partial(context.progress.watch, dataset_id, kind))
