"""The outermost layer of every request: its id, browser headers, a log line, and the answer to unforeseen errors.

It is pure ASGI, like the guards.
"""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app import logs
from serve_app.api import problems
from serve_app.api.guards import STATE_CHANGING
from serve_app.errors import ServiceError

logger = logging.getLogger(__name__)

BROWSER_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PROBES = frozenset({"/healthz", "/readyz"})
"""Health checks ask these paths every few seconds, so their refusals are not logged."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Envelope:
    """Gives the request an id, adds browser headers, and turns an unhandled exception into a bare 500.

    It logs requests that change something and requests that are refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope[problems.REQUEST_ID] = request_id
        status: int | None = None
        began = time.perf_counter()

        async def send_enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in BROWSER_HEADERS.items():
                    headers.setdefault(name, value)
                if given is None:  # Ray Serve's proxy gives every request an id and adds it to the answer
                    headers["X-Request-ID"] = request_id
            await send(message)

        with logs.about(request_id=request_id):
            try:
                await self.app(scope, receive, send_enveloped)
            except (ServiceError, HTTPException) as error:
                if status is not None:
                    raise
                await problems.answer(error, scope)(scope, receive, send_enveloped)
            except Exception:
                logger.exception("request %s failed: %s %s", request_id, scope["method"], ascii(scope["path"]))
                if status is not None:
                    # The connection must break, because a truncated stream that ends normally looks complete.
                    raise
                detail = "The service failed to answer; its log has the reason."
                problem = problems.of_status(500, detail, code="internal")
                await problems.response(problem, scope)(scope, receive, send_enveloped)
            finally:
                _log(scope, status, time.perf_counter() - began)


def _log(scope: Scope, status: int | None, seconds: float) -> None:
    """Log the request so that it can be found by its id; `status` is None if the client left before an answer."""
    is_refused = status is not None and status >= 400 and scope["path"] not in PROBES
    if is_refused or scope["method"] in STATE_CHANGING:
        level = logging.WARNING if status is not None and status >= 500 else logging.INFO
        logger.log(level, "%s %s: %s in %.3f s", scope["method"], ascii(scope["path"][:200]), status, seconds)
