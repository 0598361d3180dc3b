"""Turns an open file of vectors into an import job that only has to be committed."""

import asyncio
import uuid
from collections.abc import Awaitable
from contextlib import aclosing, suppress
from typing import TypeVar

from serve_app.errors import ServiceError, StaleAttempt, Unavailable
from serve_app.jobs.loop import PatientWriter
from serve_app.jobs.read_ahead import read_ahead
from serve_app.jobs.vector_file import VectorFile
from serve_app.records import Job
from serve_app.services import Writer
from serve_app.store.imports import Imports
from serve_app.store.jobs import Jobs

T = TypeVar("T")

LEASE_S = 30.0
PATIENCE_S = 60.0
"""How long a block waits for an absent writer; a restarted writer has lost the lease, and a runner claims the job."""


async def stage_import(
    writer: Writer,
    dataset_id: str,
    source: VectorFile,
    *,
    model_name: str,
    space_key: str,
    notify_url: str | None = None,
) -> Job:
    """Create an import job and stage every row of the file under it; the runner that claims the job commits it.

    If the sender dies on the way, a runner claims the job when its lease ends, and the job ends as an error. Stored
    vectors do not change before the commit.

    Raises:
        DatasetNotFound: no such dataset.
        JobRunning: a job of the dataset is running.
        InvalidRequest: the file is damaged; the job ends as an error.
        StaleAttempt: the job was cancelled meanwhile, or the writer was restarted.
    """
    job = await writer.ask(
        Imports.open,
        dataset_id,
        model_name=model_name,
        space_key=space_key,
        dimension=source.dimension,
        total=source.total,
        holder=uuid.uuid4().hex,
        lease_s=LEASE_S,
        notify_url=notify_url,
    )
    patient = PatientWriter(writer)
    try:
        async with aclosing(read_ahead(source.blocks())) as blocks:
            block_no = 0
            async for rows in blocks:
                block_no += 1
                await _within(patient.ask(Imports.put, job.id, job.attempt, block_no, rows, lease_s=LEASE_S))
        await _within(patient.ask(Jobs.release, job.id, job.attempt))
    except StaleAttempt:
        raise StaleAttempt(
            "The import was cancelled, or the service was restarted meanwhile: send the file again."
        ) from None
    except ServiceError as error:
        with suppress(ServiceError):
            await writer.ask(Jobs.fail, job.id, job.attempt, f"{error.code}: {error.detail}")
        raise
    return job


async def _within(work: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(work, PATIENCE_S)
    except TimeoutError:
        raise Unavailable("The database is away: send the file again later.") from None
