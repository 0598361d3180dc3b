"""The checks that every request passes before it reaches a route, as pure ASGI.

They are pure ASGI because Starlette's `BaseHTTPMiddleware` hides a client's disconnect from a stream. From the outside
in, a request passes `envelope.Envelope` (request id, browser headers, unforeseen errors), `Gate` (Host, Origin, API
key) and `BodyGuard` (size, idleness, encoding, type, strict JSON).
"""

import asyncio
import hmac
import ipaddress
import re
import socket
from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.api import strict_json
from serve_app.api.arrivals import Arrivals
from serve_app.config import Settings
from serve_app.errors import TooLarge, Unauthorized, UnsupportedMediaType

MIB = 1024 * 1024


class BodyRule(NamedTuple):
    """The body that a route accepts: one of these media types, and at most `limit_bytes` including form boundaries.

    A `spooled` body goes to disk as it arrives; other bodies stay in memory.
    """

    path: re.Pattern[str]
    media_types: tuple[str, ...]
    limit_bytes: int
    spooled: bool = False


JSON = ("application/json",)
FORM = ("multipart/form-data",)
TABLES = (
    "application/vnd.apache.parquet",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.arrow.file",
    "application/octet-stream",
)
LIGHTLY_LIMIT_BYTES = 32 * MIB
IMPORT_LIMIT_BYTES = 4096 * MIB
"""1,000,000 vectors of 768 numbers take 3.1 GB."""
COLUMNS_LIMIT_BYTES = 256 * MIB

BODY_RULES = (
    BodyRule(re.compile("/v1/embed/images/bytes"), FORM, LIGHTLY_LIMIT_BYTES),
    BodyRule(re.compile("/v1/embeddings"), JSON, 16 * MIB),
    BodyRule(re.compile("/v1/embed/texts"), JSON, 16 * MIB),
    BodyRule(re.compile(r"/datasets/[^/]+/search"), (*FORM, *JSON), 10 * MIB),
    BodyRule(re.compile(r"/datasets/[^/]+/embeddings/import"), TABLES, IMPORT_LIMIT_BYTES, spooled=True),
    BodyRule(re.compile(r"/datasets/[^/]+/columns"), ("text/csv", *TABLES), COLUMNS_LIMIT_BYTES, spooled=True),
    BodyRule(re.compile(r".*", re.DOTALL), JSON, MIB),
)
"""The first rule whose path matches applies."""

CHECKED_AT_ONCE_BYTES = 64 * 1024
"""Longer JSON is checked in a thread, so that other requests are answered meanwhile."""
MAX_HELD_BYTES = 512 * MIB
MAX_SPOOLED_BYTES = 2 * IMPORT_LIMIT_BYTES
BODY_IDLE_TIMEOUT_S = 15.0
BODY_TIMEOUT_S = 60.0
"""A whole body has this time, and one second more for each `SLOWEST_BYTES_PER_S` that it declares."""
SLOWEST_BYTES_PER_S = MIB // 4
STATE_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Gate:
    """Admits requests with this host's name, from no foreign origin, and with the API key if one is set.

    Listening on loopback does not keep browsers out: a page of any site can reach loopback through a rebound DNS name
    or by a plain form (CVE-2025-62593).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._expected = f"Bearer {settings.api_key}".encode() if settings.api_key is not None else None
        self._names = {"localhost", settings.host.lower()}
        self._listens_everywhere = settings.host in {"0.0.0.0", "::"}
        if self._listens_everywhere:
            self._names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            self._check_host(headers.get("host", ""))
            if scope["method"] in STATE_CHANGING:
                self._check_origin(headers)
            if scope["path"] != "/healthz" and not scope["path"].startswith("/static/"):
                send = self._check_key(scope, headers, send)
        await self.app(scope, receive, send)

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        if name is None:
            raise HTTPException(400, "The Host header is missing or malformed.")
        if name not in self._names and not self._is_own_address(name):
            raise HTTPException(421, "The Host header names another host than this service.")

    def _is_own_address(self, name: str) -> bool:
        """Whether a host that is not in `_names` is safe: rebinding needs a DNS name, and it cannot pass a key."""
        if self._listens_everywhere and self._expected is not None:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._listens_everywhere

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
            raise HTTPException(403, "Pages of other origins may not change anything here.")

    def _check_key(self, scope: Scope, headers: Headers, send: Send) -> Send:
        """Check the key, and return the `send` to answer with.

        A browser cannot send a key with its first request for the page. It gets status 401 with the page as the body;
        the page holds no data and asks for the key.
        """
        if self._expected is None:
            return send
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = f"{scheme.capitalize()} {key.strip()}".encode()
        if hmac.compare_digest(given, self._expected):
            return send
        if scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            return _unauthorized(send)
        raise Unauthorized("This service wants its API key as Authorization: Bearer.")


def _unauthorized(send: Send) -> Send:
    """A `send` that replaces the status of any answer with 401."""

    async def send_unauthorized(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["status"] = 401
            MutableHeaders(scope=message)["WWW-Authenticate"] = "Bearer"
        await send(message)

    return send_unauthorized


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, in lower case, without port and brackets; None if malformed."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", host)
    return (match[1] or match[2]).lower() if match else None


class BodyGuard:
    """Admits bodies that are small enough, arrive steadily and have a media type that the route accepts.

    The guard reads and checks JSON before the route gets it, and counts uploads while they pass. All bodies of this
    process together stay below `MAX_HELD_BYTES` of memory and `MAX_SPOOLED_BYTES` of disk. A body counts for what has
    arrived of it, and has only so much time, so that slow senders do not keep others out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._held = Arrivals("large bodies")
        self._spooled = Arrivals("files")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not _has_body(headers := Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        rule = next(rule for rule in BODY_RULES if rule.path.fullmatch(scope["path"]))
        _check_declared(headers, rule)
        arrivals, most = (self._spooled, MAX_SPOOLED_BYTES) if rule.spooled else (self._held, MAX_HELD_BYTES)
        arrivals.require_room(int(headers.get("content-length", 0)), most)
        limit_s = BODY_TIMEOUT_S + int(headers.get("content-length", rule.limit_bytes)) / SLOWEST_BYTES_PER_S
        with arrivals.counting(most) as count:
            body = _counted(receive, rule.limit_bytes, limit_s, count)
            if _media_type(headers) in JSON:
                content = await _read(body)
                if len(content) > CHECKED_AT_ONCE_BYTES:
                    await asyncio.to_thread(strict_json.check, content)
                else:
                    strict_json.check(content)
                body = _replayed(content, receive)
            await self.app(scope, body, send)


class Head:
    """Answers HEAD as GET without the body (RFC 9110, 9.3.2); a stream or a download ends after its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        started = asyncio.Event()

        async def send_start(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                started.set()

        work = asyncio.ensure_future(self.app({**scope, "method": "GET"}, receive, send_start))
        waiting = asyncio.ensure_future(started.wait())
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not started.is_set():
                await work
        finally:
            for task in (work, waiting):
                task.cancel()
            await asyncio.gather(work, waiting, return_exceptions=True)
        await send({"type": "http.response.body", "body": b""})


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _check_declared(headers: Headers, rule: BodyRule) -> None:
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Compressed bodies are not accepted.")
    length = headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", length):
        raise HTTPException(400, "The Content-Length header is malformed.")
    if int(length) > rule.limit_bytes:
        raise _too_large(rule.limit_bytes)
    if _media_type(headers) not in rule.media_types:
        raise UnsupportedMediaType(f"This route takes a body of Content-Type {' or '.join(rule.media_types)}.")


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"The body is over the limit of {limit_bytes // MIB} MiB.")


def _counted(receive: Receive, limit_bytes: int, limit_s: float, count: Callable[[int], None]) -> Receive:
    n_bytes = 0
    is_complete = False
    ends_at: float | None = None

    async def counted() -> Message:
        nonlocal n_bytes, is_complete, ends_at
        if is_complete:  # only the disconnect can follow, and it needs no timeout
            return await receive()
        ends_at = ends_at or _now() + limit_s
        try:
            async with asyncio.timeout_at(min(ends_at, _now() + BODY_IDLE_TIMEOUT_S)):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, f"The body stalled for {BODY_IDLE_TIMEOUT_S:.0f} s, or took too long.") from None
        n_bytes += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        if n_bytes > limit_bytes:
            # FastAPI's form parser passes an HTTPException on; it would turn any other error into a 400.
            raise HTTPException(TooLarge.status, _too_large(limit_bytes).detail)
        count(len(message.get("body", b"")))
        return message

    return counted


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "The client left before the body was complete.")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replayed(content: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    return replayed
