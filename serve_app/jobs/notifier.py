"""Delivers the webhooks of ended jobs, signed as Standard Webhooks says (standardwebhooks.com), at least once each.

What is due lies in the store, so that a restarted runner goes on with it. This module does not know which hosts may be
told: the request that started the job was checked, and `Web` checks each connection.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Protocol

from serve_app.errors import InvalidRequest, RefusedImage, ServiceError, Unavailable
from serve_app.jobs.retrying import NOTIFY, UNTIL_BACK, Retry
from serve_app.records import Job
from serve_app.services import Writer
from serve_app.store.notifications import Notifications
from serve_app.urls import Url, parse

log = logging.getLogger("constellate.notifier")

POLL_S = 1.0
MAX_AT_ONCE = 16
SECRET_PREFIX = "whsec_"


class Poster(Protocol):
    """Sends a body to a URL."""

    def post(self, url: Url, body: bytes, headers: dict[str, str]) -> None:
        """Send the body and return once the receiver has taken it. Raises `RefusedImage`, whose reason says why not."""
        ...


class Notifier:
    """Tells the receivers of all jobs, `MAX_AT_ONCE` at a time.

    Args:
        writer: the store.
        poster: sends requests.
        secret: the setting `notify_key`.
        retry: when a delivery is tried again.
        clock: the time of the signatures, in seconds since 1970.
    """

    def __init__(
        self,
        writer: Writer,
        poster: Poster,
        secret: str | None,
        *,
        retry: Retry = NOTIFY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._poster = poster
        self._secret = secret
        self._retry = retry
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Deliver what is due for ever; on cancellation, leave what is under way to the next runner."""
        try:
            while True:
                if (room := MAX_AT_ONCE - len(self._under_way)) > 0:
                    await self._begin(room)
                await asyncio.sleep(POLL_S)
        finally:
            tasks = list(self._under_way.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, limit: int) -> None:
        due = await UNTIL_BACK.until_answered(
            lambda: self._writer.ask(Notifications.due, limit=limit, but=list(self._under_way)), what="the writer"
        )
        for job, url in due:
            task = asyncio.create_task(self.deliver(job, url), name=f"notify-{job.id}")
            self._under_way[job.id] = task
            task.add_done_callback(lambda _, job_id=job.id: self._under_way.pop(job_id, None))  # type: ignore[misc]

    async def deliver(self, job: Job, url: str) -> None:
        """Tell one receiver, and note in the store how that ended."""
        try:
            await self._retry.until_answered(lambda: self._post(job, url), what=f"the receiver of job {job.id}")
        except ServiceError as error:
            log.warning("job %s: the webhook was not delivered: %s", job.id, error.detail)
            await self._settle(job, "failed", error.detail)
        except Exception:
            log.exception("job %s: the webhook was not delivered", job.id)
            await self._settle(job, "failed", "internal error; the log of the service has the details")
        else:
            await self._settle(job, "delivered", None)

    async def _post(self, job: Job, url: str) -> None:
        if self._secret is None:
            raise InvalidRequest("the service has no NOTIFY_KEY any more")
        body = body_of(job)
        headers = {"Content-Type": "application/json", **signed(self._secret, job.id, int(self._clock()), body)}
        try:
            await asyncio.to_thread(self._poster.post, parse(url, with_query=True), body, headers)
        except RefusedImage as error:
            raise Unavailable(error.detail) from None

    async def _settle(self, job: Job, state: str, detail: str | None) -> None:
        await UNTIL_BACK.until_answered(
            lambda: self._writer.ask(Notifications.settle, job.id, state, detail),  # type: ignore[arg-type]
            what="the writer",
        )


def body_of(job: Job) -> bytes:
    """The JSON that a receiver gets: `type`, `timestamp` (the end of the job) and `data`, the job."""
    end = job.finished_at or datetime.now(UTC)
    message = {"type": f"job.{job.status}", "timestamp": end.isoformat(), "data": asdict(job)}
    return json.dumps(message, default=datetime.isoformat, ensure_ascii=False).encode()


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that let a receiver check who sent a body, and when.

    Args:
        secret: base64, with or without the prefix `whsec_`.
        message_id: the same for each try, so that a receiver can tell that it has the message.
        timestamp: seconds since 1970.
        body: the body.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
