"""`JobRunner`: the Serve deployment that runs the job loop."""

import asyncio
import logging
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments import writer
from deployments.handles import EmbedderHandle, ReducerHandle, SearcherHandle, WriterHandle
from deployments.loopback import keep_replica_here
from serve_app import logs
from serve_app.config import Settings
from serve_app.jobs.listing import Lister
from serve_app.jobs.loop import JobLoop
from serve_app.jobs.notifier import Notifier
from serve_app.policy import Policy
from serve_app.sources.reading import Reader
from serve_app.sources.web import Web

log = logging.getLogger("constellate.runner")


class JobRunner:
    """The one replica of the job loop; a second one during a redeploy is harmless, because attempts are fenced."""

    async def __init__(  # type: ignore[misc]  # Serve awaits an async constructor
        self, settings: Settings, policy: Policy, reducer: DeploymentHandle[Any], searcher: DeploymentHandle[Any]
    ) -> None:
        logs.to_stderr("JobRunner")
        keep_replica_here()
        await asyncio.to_thread(writer.hand_over, settings)
        self._loop = JobLoop(
            WriterHandle(settings),
            EmbedderHandle(settings),
            ReducerHandle(reducer),
            reader=Reader(settings),
            lister=Lister(settings),
            searcher=SearcherHandle(searcher),
            window=policy.window,
            chunk_images=policy.chunk_images,
        )
        # The tasks start here and not in a handler, because a task inherits the context of the request that starts it.
        self._task = asyncio.create_task(self._loop.run())
        web = Web(settings.dataset_roots, allow_private=settings.allow_private_urls)
        self._notifying = asyncio.create_task(Notifier(WriterHandle(settings), web, settings.notify_key).run())

    async def nudge(self) -> None:
        """Look for a claimable job now."""
        self._loop.nudge()

    async def check_health(self) -> None:
        """Raise if the loop has ended, so that Serve replaces the replica."""
        for task in (self._task, self._notifying):
            if task.done():
                raise RuntimeError("the job loop or the notifier ended") from task.exception()

    async def __del__(self) -> None:
        """Release held jobs on a graceful stop; after a kill their leases run out instead."""
        for task in (self._task, self._notifying):
            task.cancel()
        await asyncio.gather(self._task, self._notifying, return_exceptions=True)
