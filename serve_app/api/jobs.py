"""Routes of jobs, running and ended."""

from fastapi import APIRouter

from serve_app.api import problems
from serve_app.api.context import ServicesNow
from serve_app.api.schemas import Limit
from serve_app.errors import JobNotFound
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
