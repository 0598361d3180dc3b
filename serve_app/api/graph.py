"""Routes of a dataset's neighbour graph, a durable job: large sets need it for duplicates and outliers."""

from fastapi import APIRouter, Response

from serve_app.api import problems, webhook
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.embeddings import STARTED, cancel_job
from serve_app.api.schemas import GraphOptions, JobCancelled, JobStarted, SetModel
from serve_app.api.streams import DOCUMENTED, LastEventId, stream
from serve_app.errors import DatasetNotFound, JobRunning, NoEmbeddings, NothingRunning
from serve_app.store.jobs import Jobs

router = APIRouter(prefix="/datasets/{dataset_id}/graph", tags=["search"])


@router.post("", status_code=202, responses=STARTED | problems.documented(NoEmbeddings, DatasetNotFound, JobRunning))
async def make_graph(
    dataset_id: str,
    services: ServicesNow,
    context: ContextNow,
    response: Response,
    options: GraphOptions | None = None,
    model: SetModel = None,
) -> JobStarted:
    """Find the nearest neighbours of every vector, once for this set; a graph of as many that is there is kept."""
    options = options or GraphOptions()
    notify_url = webhook.checked(options.notify_url, context.settings)
    params = options.model_dump(exclude={"notify_url"})
    job = await services.writer.ask(
        Jobs.create, dataset_id, "graph", model_name=model, params=params, notify_url=notify_url
    )
    await services.runner.nudge()
    response.headers["Location"] = f"/jobs/{job.id}"
    return JobStarted(dataset_id=dataset_id, message=f"Finding neighbours of {job.total} images.", job_id=job.id)


@router.post("/cancel", status_code=202, responses=problems.documented(DatasetNotFound, NothingRunning))
async def cancel_graph(dataset_id: str, services: ServicesNow) -> JobCancelled:
    """Cancel the dataset's running job, of any kind; the next graph job goes on after what a cancelled one has done."""
    return await cancel_job(dataset_id, services)


@router.get("/progress", response_class=Response, responses=DOCUMENTED)
async def follow_graph(
    dataset_id: str, services: ServicesNow, context: ContextNow, last_event_id: LastEventId = None
) -> Response:
    """Follow the dataset's graph job; without a job, the stream sends `idle` and waits."""
    return await stream(services, context, dataset_id, "graph", last_event_id)
