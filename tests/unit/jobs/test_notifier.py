"""Webhooks of ended jobs, against a real receiver and the real store."""

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from serve_app.jobs.notifier import Notifier
from serve_app.jobs.retrying import NOTIFY
from serve_app.records import SourceFile
from serve_app.sources.web import Web
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.executor import StoreExecutor
from serve_app.store.jobs import Jobs
from tests.unit.store.workbench import lay_blank

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
AT_ONCE = replace(NOTIFY, first_pause_s=0.0, longest_pause_s=0.0, attempts=3)


class Receiver(http.server.ThreadingHTTPServer):
    """Answers with the given statuses in turn, the last one again and again, and keeps what arrived."""

    def __init__(self, *statuses):
        super().__init__(("127.0.0.1", 0), Hook)
        self.statuses = list(statuses)
        self.messages = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.messages.append((self.path, dict(self.headers.items()), body))
        left = self.server.statuses
        self.send_response(left.pop(0) if len(left) > 1 else left[0])
        self.send_header("Location", self.server.url + "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


@contextmanager
def receiver(*statuses):
    with Receiver(*statuses) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
async def store(tmp_path):
    lay_blank(tmp_path / "state" / "db")
    store = StoreExecutor(Database(tmp_path / "state" / "db"))
    yield store
    await store.drain_and_close()


async def ended_job(store, url):
    """A job that was cancelled and has a webhook."""
    scan_id = await store.ask(Datasets.begin_scan)
    await store.ask(Datasets.put_scan, scan_id, 0, [SourceFile("a", "a.png")])
    dataset = await store.ask(Datasets.register, scan_id, name=scan_id, root="/x", format="folder", annotations=None)
    job = await store.ask(Jobs.create, dataset.id, "embed", model_name="m", notify_url=url)
    assert job.notified == "pending"
    return await store.ask(Jobs.cancel, dataset.id)


def web(*roots, allow_private=True):
    return Web(roots, allow_private=allow_private)


async def settled(store, notifier, job):
    """Run a notifier until the job's webhook is settled; returns the job."""
    running = asyncio.create_task(notifier.run())
    try:
        async with asyncio.timeout(60):
            while (found := await store.ask(Jobs.get, job.id)).notified == "pending":
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return found


def is_signed(headers, body):
    message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(bytes(range(32)), message, hashlib.sha256).digest()
    return headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"


async def test_the_end_of_a_job_is_told_with_a_signature(store):
    with receiver(204) as server:
        job = await ended_job(store, f"{server.url}/hook?token=1")
        found = await settled(store, Notifier(store, web(server.url), SECRET, clock=lambda: 1234.5), job)
    assert (found.notified, found.notify_detail) == ("delivered", None)
    [(path, headers, body)] = server.messages
    message = json.loads(body)
    assert (path, message["type"], message["data"]["id"]) == ("/hook?token=1", "job.cancelled", job.id)
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (job.id, "1234")
    assert is_signed(headers, body)
    assert not is_signed(headers, body + b" ")


async def test_a_receiver_that_fails_is_told_again_under_the_same_id(store):
    with receiver(500, 404, 200) as server:
        job = await ended_job(store, server.url)
        found = await settled(store, Notifier(store, web(server.url), SECRET, retry=AT_ONCE), job)
    assert found.notified == "delivered"
    assert [headers["webhook-id"] for _, headers, _ in server.messages] == [job.id] * 3


async def test_a_receiver_that_never_takes_it_is_given_up_and_the_job_says_why(store):
    with receiver(503) as server:
        job = await ended_job(store, server.url)
        found = await settled(store, Notifier(store, web(server.url), SECRET, retry=AT_ONCE), job)
    assert (found.notified, len(server.messages)) == ("failed", 3)
    assert found.notify_detail == "the receiver answered with HTTP status 503"


async def test_a_redirect_is_not_followed(store):
    with receiver(307) as server:
        job = await ended_job(store, server.url + "/hook")
        found = await settled(store, Notifier(store, web(server.url), SECRET, retry=AT_ONCE), job)
    assert found.notified == "failed"
    assert {path for path, _, _ in server.messages} == {"/hook"}


async def test_a_notifier_that_dies_on_the_way_leaves_the_rest_to_the_next(store):
    with receiver(500, 200) as server:
        job = await ended_job(store, server.url)
        first = Notifier(store, web(server.url), SECRET, retry=replace(NOTIFY, first_pause_s=3600.0))
        running = asyncio.create_task(first.run())
        async with asyncio.timeout(60):
            while not server.messages:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await store.ask(Jobs.get, job.id)).notified == "pending"
        found = await settled(store, Notifier(store, web(server.url), SECRET), job)
    assert (found.notified, len(server.messages)) == ("delivered", 2)


@pytest.mark.parametrize(
    ("poster", "secret", "detail"),
    [
        (lambda url: web(url, allow_private=False), SECRET, "private, loopback or link-local"),
        (lambda url: web("https://elsewhere"), SECRET, "not below DATASET_ROOTS"),
        (web, None, "no NOTIFY_KEY"),
    ],
    ids=["private address", "root taken away", "key taken away"],
)
async def test_what_may_not_be_told_any_more_is_not(store, poster, secret, detail):
    with receiver(200) as server:
        job = await ended_job(store, server.url)
        found = await settled(store, Notifier(store, poster(server.url), secret, retry=AT_ONCE), job)
    assert (found.notified, server.messages) == ("failed", [])
    assert detail in found.notify_detail


async def test_a_running_job_is_not_told_yet(store):
    with receiver(200) as server:
        ended = await ended_job(store, server.url)
        running = await store.ask(Jobs.create, ended.dataset_id, "embed", model_name="m", notify_url=server.url)
        await settled(store, Notifier(store, web(server.url), SECRET), ended)
        assert (await store.ask(Jobs.get, running.id)).notified == "pending"
    assert len(server.messages) == 1


async def test_an_error_that_nobody_foresaw_ends_the_webhook(store):
    class Broken:
        def post(self, url, body, headers):
            raise TypeError("a bug")

    job = await ended_job(store, "http://127.0.0.1:1/hook")
    found = await settled(store, Notifier(store, Broken(), SECRET, retry=AT_ONCE), job)
    assert (found.notified, found.notify_detail.partition(";")[0]) == ("failed", "internal error")
