"""The real application, store and job loop behind a loopback port; only the model is a fake.

In a thread for tests that talk to it, and as a program (`python -m tests.live_service`, settings from the
environment) for tests of what starts and stops services.
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading

import numpy as np
import uvicorn

from serve_app.api import create_app
from serve_app.cli.service_commands import stop_at_eof
from serve_app.config import Settings
from serve_app.errors import RefusedImage
from serve_app.jobs.graph_job import graph_job
from serve_app.jobs.listing import Lister
from serve_app.jobs.loop import JobLoop
from serve_app.policy import MAX_PAIRWISE_ROWS, Policy
from serve_app.projection.fit_process import graph_of_set
from serve_app.records import Block, Layout, Skip
from serve_app.search.searcher import LocalSearcher
from serve_app.search.set_files import SetFiles
from serve_app.service_record import ServiceRecord
from serve_app.services import Services
from serve_app.sources.files import read_file
from serve_app.sources.reading import Reader
from serve_app.store.database import Database
from serve_app.store.executor import StoreExecutor
from serve_app.store.vectors import Vectors
from tests.fakes import FakeEmbedder, FakeModel


class FakeFileEmbedder(FakeEmbedder):
    """A `FakeEmbedder` that also reads files, as a replica does."""

    async def embed_files(self, model, root, tasks):
        ids, vectors, stamps, skips = [], [], [], []
        for task in tasks:
            try:
                data, stamp = read_file(root, task.file_name, max_bytes=10**6)
                [vector] = (await self.embed_images(model, [data])).outcomes
            except RefusedImage as error:
                vector = Skip.of(error)
            if isinstance(vector, Skip):
                skips.append(Skip(task.sample_id, task.file_name, vector.reason, vector.detail))
            else:
                ids.append(task.sample_id)
                vectors.append(vector)
                stamps.append(stamp)
        stacked = np.stack(vectors) if vectors else np.empty((0, self.model.card.dimension), np.float32)
        return Block(ids, stacked, stamps, skips=skips, space_key=self.model.card.space_key)


class LineProjector:
    """Puts the i-th sample at (i, -i), and makes graphs in a thread of this process."""

    def __init__(self, writer, folder):
        self._writer = writer
        self._sets = SetFiles(folder, writer)

    async def warm(self):
        pass

    async def reduce(self, claim):
        stored = await self._writer.ask(Vectors.current, claim.dataset.id)
        numbers = np.arange(stored.count, dtype=np.float64)
        points = np.stack([numbers, -numbers], axis=1)
        layout = Layout(points, note="; drawn anew" if claim.params["redraw"] else "")
        await self._writer.ask(Vectors.put_points, claim.job.id, claim.attempt, stored.job_id, layout)

    async def graph(self, claim):
        await graph_job(claim, self._writer, self._sets, InProcess())


class InProcess:
    """A `FitProcess` that is none."""

    async def graph(self, folder, k, on_progress):
        return await asyncio.to_thread(graph_of_set, folder, k, on_progress)


class LoopRunner:
    """Nudges a loop in the same process."""

    def __init__(self, loop):
        self._loop = loop

    async def nudge(self):
        self._loop.nudge()


class LiveService:
    """Serves from a thread between `start` and `stop`; `embedder` is there to be tampered with.

    With a small `max_pairwise_rows`, few images are a set that needs a graph.
    """

    def __init__(self, settings):
        self.settings = settings
        self.embedder = FakeFileEmbedder(FakeModel(name=settings.model))
        self.max_pairwise_rows = MAX_PAIRWISE_ROWS
        self._server = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self.run()), name="live-service")
        self._is_up = threading.Event()

    def hold(self):
        """From now on, never answer about files."""
        self.embedder.embed_files = _never

    def start(self):
        self._thread.start()
        assert self._is_up.wait(120), "the live service did not start"

    def stop(self):
        if self._server is None:
            return
        self._server.should_exit = True
        self._thread.join(120)
        assert not self._thread.is_alive(), "the live service did not stop"

    def application(self, services):
        return create_app(self.settings, lambda: services)

    async def run(self):
        store = StoreExecutor(Database(self.settings.database_path))
        searcher = LocalSearcher(store, self.settings.sets_path, max_pairwise_rows=self.max_pairwise_rows)
        jobs = JobLoop(
            store,
            self.embedder,
            LineProjector(store, self.settings.sets_path),
            reader=Reader(self.settings),
            lister=Lister(self.settings),
            searcher=searcher,
            window=4,
            chunk_images=2,
        )
        policy = Policy.choose(self.settings, n_cpus=2, n_gpus=0)
        services = Services(self.settings, policy, store, self.embedder, searcher, LoopRunner(jobs))
        config = uvicorn.Config(
            self.application(services),
            self.settings.host,
            self.settings.port,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        self._server = _Announcing(config, self._is_up)
        running = asyncio.create_task(jobs.run())
        try:
            await self._server.serve()
        finally:
            running.cancel()
            await asyncio.wait({running})
            await store.drain_and_close()


class _Announcing(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config, is_up):
        super().__init__(config)
        self._is_up = is_up

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self._is_up.set()


def main(arguments):
    """What `constellate serve` does, with a fake model; `--hold` makes it never answer about files."""
    settings = Settings.from_environment(os.environ)
    service = LiveService(settings)
    if "--until-eof" in arguments:
        threading.Thread(target=stop_at_eof, daemon=True).start()
    if "--hold" in arguments:
        service.hold()
    record = ServiceRecord.of_this_process(url=settings.url, ray_address="")
    record.write(settings.data_dir)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(service.run())
    finally:
        record.remove(settings.data_dir)
        print("Stopped.", flush=True)


async def _never(model, root, tasks):
    await asyncio.Event().wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    main(sys.argv[1:])
