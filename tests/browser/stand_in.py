"""A service that answers as docs/api.md says, with made-up images, so that the page can be tested on its own.

It serves the real page with the real headers (`serve_app.api.pages`), can be slow, fail, skip, want a key, and be
stopped and started again on the same port.
"""

import threading
import time
import uuid

import uvicorn
from fastapi import FastAPI, Request
from starlette.routing import Mount

from serve_app.api import pages
from tests.browser import routes
from tests.browser.album import Album
from tests.ports import free_port


class StandIn:
    """The state of the service; tests turn its knobs.

    `job_s` is how long a job takes, `fail_with` the message jobs fail with half-way, `skip` how many images an
    embed job leaves out. `requests` are the (method, path) of all requests so far.
    """

    def __init__(self):
        self.begin()

    def begin(self):
        """Forget everything, for the next test."""
        self.albums = {}
        self.jobs = []
        self.api_key = None
        self.job_s = 1.0
        self.listing_s = 0.0
        self.fail_with = None
        self.skip = 0
        self.requests = []
        self.last_event_ids = []

    def add(self, album: Album, *, is_mapped=True):
        """Register an album, by default with vectors and a map."""
        self.albums[album.id] = album
        album.has_vectors = album.has_map = is_mapped
        return album

    def start_job(self, dataset_id, kind):
        """Begin a job; None when one of the dataset runs."""
        if self.running_job(dataset_id):
            return None
        job = {
            "id": uuid.uuid4().hex, "dataset_id": dataset_id, "kind": kind, "status": "running", "processed": 0,
            "skipped": 0, "total": self.albums[dataset_id].n, "message": "Waiting to start", "seq": 1, "rate": None,
            "eta_s": None, "started": time.monotonic(),
        }  # fmt: skip
        self.jobs.insert(0, job)
        return job

    def end_jobs(self):
        """Bring every job to its end at the next look."""
        self.job_s = 0.001

    def running_job(self, dataset_id):
        """The dataset's running job or None."""
        for job in self.jobs:
            self.advance(job)
        return next((job for job in self.jobs if (job["dataset_id"], job["status"]) == (dataset_id, "running")), None)

    def advance(self, job):
        """Bring a job up to the present."""
        if job["status"] != "running":
            return
        album = self.albums[job["dataset_id"]]
        share = (time.monotonic() - job["started"]) / self.job_s
        job["seq"] += 1
        if self.fail_with and share > 0.5:
            job.update(status="error", message=self.fail_with)
        elif share >= 1:
            self._complete(job, album)
        else:
            left_s = (1 - share) * self.job_s
            job.update(processed=int(share * album.n), rate=album.n / self.job_s, eta_s=left_s, message="Working")

    def _complete(self, job, album):
        job.update(status="complete", processed=job["total"], message="Done", eta_s=0)
        if job["kind"] == "graph":
            album.needs_graph = False
            return
        if job["kind"] == "reduce":
            album.has_map = True
            return
        job["skipped"] = self.skip
        album.has_vectors, album.has_map, album.made_by = True, False, job["id"]
        album.skips = [
            {"sample_id": name, "file_name": name, "reason": "truncated", "detail": "The file ends early."}
            for name in album.file_names[: self.skip]
        ]


def build(service):
    """The application over a `StandIn`."""
    app = FastAPI()

    @app.middleware("http")
    async def gate(request: Request, call_next):
        path = request.url.path
        service.requests.append((request.method, path))
        has_key = not service.api_key or request.headers.get("authorization") == f"Bearer {service.api_key}"
        if has_key or path.startswith("/static/"):
            return await call_next(request)
        if path != "/":
            return routes.problem(401, "This service wants its API key as Authorization: Bearer.")
        page = await call_next(request)
        page.status_code = 401  # a browser shows the body all the same
        return page

    @app.exception_handler(ValueError)
    async def refuse(request: Request, error: ValueError):
        where = request.query_params.get("where", "")
        detail = f"{error} (invalid filter)"
        return routes.problem(422, detail, code="invalid_filter", position=len(where) - len(where.rsplit(" ", 1)[-1]))

    for router in routes.ROUTERS:
        app.include_router(router(service))
    app.include_router(pages.router)
    app.router.routes.append(Mount("/static", pages.PageFiles(), name="static"))
    return app


class Server:
    """Runs an application in a thread, on one port across restarts."""

    def __init__(self, app):
        self._app = app
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = None
        self._thread = None

    def start(self):
        """Serve; returns once connections are taken."""
        self._server = uvicorn.Server(uvicorn.Config(self._app, port=self.port, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the stand-in did not start"
            time.sleep(0.02)

    @property
    def is_up(self):
        """Whether it serves."""
        return self._thread.is_alive()

    def stop(self):
        """Break every connection and stop."""
        self._server.force_exit = True
        self._server.should_exit = True
        self._thread.join()
