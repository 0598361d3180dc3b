"""Removes headers from requests before the code of Serve's HTTP proxy reads them.

The proxy obeys two headers that are meant for its operator. One ends any request after a time that the sender chooses,
the other keeps a request running after its client has left. Clients of this service must not control either.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.middlewares"}
"""The environment variable that makes a proxy call `middlewares` when it starts."""

_OPERATORS_ONLY = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})


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


def middlewares() -> list[Middleware]:
    """The middlewares that Serve wraps around its proxy."""
    return [Middleware(Stripped)]
