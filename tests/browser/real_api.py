"""The page over the real API and the real store; only the model and the job loop are simple ones."""

import asyncio
import contextlib
import threading

from serve_app.api import create_app
from serve_app.errors import ServiceError
from serve_app.jobs.listing import Lister
from serve_app.jobs.listing_job import listing_job
from serve_app.policy import Policy
from serve_app.search.searcher import LocalSearcher
from serve_app.services import Services
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from tests.browser.stand_in import Server
from tests.fakes import FakeRunner
from tests.unit.api import work


class JobLoop(FakeRunner):
    """Carries each job to its end as soon as it is told of it."""

    def __init__(self, find_services):
        super().__init__()
        self._find_services = find_services
        self._tasks = set()

    async def nudge(self):
        await super().nudge()
        task = asyncio.create_task(self._work())
        self._tasks.add(task)

    async def _work(self):
        services = self._find_services()
        [newest] = await services.writer.ask(Jobs.all, limit=1)
        if newest.kind == "register":
            await listing_job(await work.claim(services), services.writer, Lister(services.settings))
            return
        for step in (work.embed, work.reduce):
            with contextlib.suppress(ServiceError, AssertionError):
                await step(services)


@contextlib.contextmanager
def serving(settings, embedder):
    """The server of a service with this embedder; its store is closed at the end."""
    store = StoreExecutor(Database(settings.database_path))
    services = Services(
        settings=settings,
        policy=Policy.choose(settings, n_cpus=2, n_gpus=0),
        writer=store,
        embedder=embedder,
        searcher=LocalSearcher(store, settings.sets_path),
        runner=JobLoop(lambda: services),
    )
    server = Server(create_app(settings, lambda: services))
    server.start()
    yield server
    server.stop()
    # Playwright's loop is running in this thread.
    closing = threading.Thread(target=asyncio.run, args=(store.drain_and_close(),))
    closing.start()
    closing.join()
