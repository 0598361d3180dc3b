"""Routes of jobs, running and ended."""

from functools import partial

from fastapi import APIRouter, Response

from serve_app.api import problems
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.progress_hub import has_seen_end
from serve_app.api.schemas import JobCancelled, Limit
from serve_app.api.streams import LastEventId, ProgressStream, documented
from serve_app.errors import JobNotFound, NothingRunning
from serve_app.records import Job
from serve_app.store.jobs import Jobs

router = APIRouter(tags=["jobs"])


@router.get("/jobs")
async def list_jobs(services: ServicesNow, limit: Limit = 100) -> list[Job]:
    """List jobs, newest first."""
    return await services.writer.ask(Jobs.all, limit=limit)


@router.get("/jobs/{job_id}", responses=problems.documented(JobNotFound))
async def get_job(job_id: str, services: ServicesNow) -> Job:
    """Get one job by its id."""
    return await services.writer.ask(Jobs.get, job_id)


@router.get("/jobs/{job_id}/progress", response_class=Response, responses=documented(JobNotFound))
async def follow_job(
    job_id: str, services: ServicesNow, context: ContextNow, last_event_id: LastEventId = None
) -> Response:
    """Follow one job of any kind to its end; the dataset of a registration has no stream of its own before that."""
    job = await services.writer.ask(Jobs.get, job_id)
    if last_event_id is not None and has_seen_end(job, last_event_id):
        return Response(status_code=204)
    return ProgressStream(partial(context.progress.watch, job.dataset_id, job.kind, job))


@router.post("/jobs/{job_id}/cancel", status_code=202, responses=problems.documented(JobNotFound, NothingRunning))
async def cancel_one_job(job_id: str, services: ServicesNow) -> JobCancelled:
    """Cancel a job of any kind; what it would have changed stays as it was."""
    job = await services.writer.ask(Jobs.cancel_one, job_id)
    await services.runner.nudge()
    return JobCancelled(dataset_id=job.dataset_id, message=job.message, job_id=job.id)
