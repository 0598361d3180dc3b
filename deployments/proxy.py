"""What Serve's HTTP proxy does with a request before its own code sees it.

The proxy obeys two headers that are meant for whoever runs it: one ends any request after a time of the client's
choosing, the other keeps it running after the client has gone. Clients of this service have no say in either.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CALLBACK = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}.middlewares"}
"""The environment in which a proxy calls `middlewares` when it starts."""

_OPERATORS_ONLY = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})


class Stripped:
    """The proxy, deaf to the headers that only its operator may send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _OPERATORS_ONLY]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Serve wraps around its proxy."""
    return [Middleware(Stripped)]
