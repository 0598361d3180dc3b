"""What Serve's HTTP proxy must not do itself: obey any client, answer for the service, wait for clients for ever.

The proxy obeys two headers that are meant for its operator. One ends any request after a time that the sender chooses,
the other keeps a request running after its client has left. Clients of this service must not control either.

The proxy answers two paths before any check of the ingress. One lists the applications, and is closed. And a proxy that
has just been started knows no routes yet: it answers 404, which to a client means that the dataset is gone.

The proxy also waits without limit for a client that stays connected and reads nothing. Such a client would keep the
place of a stream or of a request.
"""

import json
import socket
import sys
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import NotFound, ServiceError, Unavailable

CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.middlewares"}
"""The environment variable that makes a proxy call `middlewares` when it starts."""

_OPERATORS_ONLY = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})


FROZEN_STREAM_S = 15.0
"""A progress stream is cut when its client takes nothing for so long; a client that is alive connects again."""

FROZEN_S = 600.0
"""The same limit for any other answer; it is long because a download may be paused."""


class Stripped:
    """The proxy without the headers that only its operator may send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _OPERATORS_ONLY]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


ROUTES_PATH = "/-/routes"
RETRY_AFTER_S = 2


class Silenced:
    """The proxy without its list of applications, and with 503 in place of its 404 while it knows no routes.

    The application `api` takes every path, so there is no other reason for a 404 of the proxy's own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == ROUTES_PATH:
            await _answer(NotFound("There is nothing at this path."), send)
        else:
            await self._app(scope, receive, _without_missing_routes(send))


def _without_missing_routes(send: Send) -> Send:
    held: list[Message] = []

    async def send_or_replace(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == NotFound.status:
            held.append(message)  # its body tells whose answer it is
            return
        if held:
            start = held.pop()
            if _is_of_proxy(message.get("body", b"")):
                await _answer(Unavailable("The service is starting; try again."), send)
                return
            await send(start)
        await send(message)

    return send_or_replace


def _is_of_proxy(body: bytes) -> bool:
    return body.startswith(b"Path '") and ROUTES_PATH.encode() in body


async def _answer(error: ServiceError, send: Send) -> None:
    """Answer with a problem as `serve_app.api.problems` writes it; the proxy's process does not load the routes."""
    titles = {NotFound.status: "Not Found", Unavailable.status: "Service Unavailable"}
    problem = {"type": "about:blank", "title": titles[error.status], "status": error.status}
    content = json.dumps(problem | {"detail": error.detail, "code": error.code}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]
    if isinstance(error, Unavailable):
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Undelivered:
    """Wraps the proxy and drops clients that no longer take any data.

    The kernel drops a connection when the client takes no data for `TCP_USER_TIMEOUT` (tcp(7)), even if the client
    still acknowledges that it is there. uvicorn then tells the proxy that the client has left. The middleware does
    nothing on systems without this option, and under servers that do not give access to their socket.
    """

    def __init__(self, app: ASGIApp, *, stream_s: float = FROZEN_STREAM_S, other_s: float = FROZEN_S) -> None:
        self._app = app
        self._stream_s = stream_s
        self._other_s = other_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""

        async def send_for_so_long(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The limit is set for each answer, because the connection may carry several requests.
                _give_up_after(send, self._stream_s if _is_stream(message) else self._other_s)
            await send(message)

        await self._app(scope, receive, send_for_so_long if scope["type"] == "http" else send)


def _is_stream(start: Message) -> bool:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    return headers.get(b"content-type", b"").startswith(b"text/event-stream")


def _give_up_after(send: Send, timeout_s: float) -> None:
    """Set the time limit on the connection behind `send`, which is a method of uvicorn's `RequestResponseCycle`."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    connection: Any = transport.get_extra_info("socket") if transport is not None else None
    if sys.platform == "linux" and connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * timeout_s))


def middlewares() -> list[Middleware]:
    """The middlewares that Serve wraps around its proxy. The outermost comes last: it needs uvicorn's own `send`."""
    return [Middleware(Stripped), Middleware(Silenced), Middleware(Undelivered)]
