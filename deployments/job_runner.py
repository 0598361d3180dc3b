"""`JobRunner`: the Serve deployment in which the job loop lives."""

import asyncio
import logging
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments import writer
from deployments.handles import EmbedderHandle, ReducerHandle, WriterHandle
from serve_app import logs
from serve_app.config import Settings
from serve_app.jobs.loop import JobLoop
from serve_app.policy import Policy
from serve_app.sources.reading import Reader

log = logging.getLogger("constellate.runner")


class JobRunner:
    """One replica; a second one during a redeploy is harmless, since attempts are fenced."""

    async def __init__(  # type: ignore[misc]  # Serve awaits an async constructor
        self, settings: Settings, policy: Policy, reducer: DeploymentHandle[Any]
    ) -> None:
        logs.to_stderr("JobRunner")
        await asyncio.to_thread(writer.hand_over, settings)
        self._loop = JobLoop(
            WriterHandle(settings),
            EmbedderHandle(settings),
            ReducerHandle(reducer),
            reader=Reader(settings),
            window=policy.window,
            chunk_images=policy.chunk_images,
        )
        # Begun here and not in a handler: a task inherits the context of the request it was made in.
        self._task = asyncio.create_task(self._loop.run())

    async def nudge(self) -> None:
        """Look for a claimable job now."""
        self._loop.nudge()

    async def check_health(self) -> None:
        """Fail, so that Serve replaces the replica, when the loop has ended."""
        if self._task.done():
            raise RuntimeError("the job loop ended") from self._task.exception()

    async def __del__(self) -> None:
        """Give held jobs back on a graceful stop; after a kill their leases run out instead."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
