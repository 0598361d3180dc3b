"""Fetches images and manifests from the web, without letting clients reach the service's own network.

A host name is looked up once, its addresses must all be public, and the connection goes to one of them. A name that
changes between two look-ups (DNS rebinding) therefore gains nothing. This module follows redirects itself, and each hop
passes the same checks. It does not use proxies from the environment.
"""

import errno
import math
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

import httpcore

from serve_app.errors import InvalidRequest, OutsideRoots, RefusedImage, Unavailable
from serve_app.sources.addresses import is_public
from serve_app.sources.files import UNKNOWN, check_size
from serve_app.sources.remote import change_mark
from serve_app.sources.roots import Roots, allows, require_root
from serve_app.sources.shortage import raise_shortage
from serve_app.urls import Url, parse

CONNECT_S = 10.0
READ_S = 20.0
TOTAL_S = 60.0
POST_S = 10.0
"""The time that a webhook may take, from the look-up of its host to the status of the answer."""
MAX_REDIRECTS = 5
MAX_MANIFEST_BYTES = 1 << 30
POOL = 32
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PRIVATE = (
    "unreachable: its host is at a private, loopback or link-local address, which the service does not ask; "
    "CONSTELLATE_ALLOW_PRIVATE_URLS=true allows it"
)


_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
"""The end of the time of the request that this thread makes; connections outlive requests and are shared by threads."""


def _left_s(timeout: float | None, expired: type[Exception]) -> float:
    """The seconds that a step may take: its own limit, or what the request has left. Raises `expired` if nothing is."""
    left = _deadline.get() - time.monotonic()
    if left <= 0:
        raise expired("the request took too long")
    return min(left, READ_S if timeout is None else timeout)


class PunctualStream(httpcore.NetworkStream):
    """A connection whose every step ends with the time of its request.

    httpcore's own limits count from the last byte. A server that sends a byte of a header now and then, or answers 103
    for ever, keeps each of them.
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: D102
        return self._stream.read(max_bytes, _left_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: D102
        self._stream.write(buffer, _left_s(timeout, httpcore.WriteTimeout))

    def close(self) -> None:  # noqa: D102
        self._stream.close()

    def start_tls(  # noqa: D102
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = _left_s(timeout, httpcore.ConnectTimeout)
        return PunctualStream(self._stream.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> Any:  # noqa: D102
        return self._stream.get_extra_info(info)


class PinnedBackend(httpcore.SyncBackend):
    """Connects only to addresses that it has checked."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Look a host up once, and connect to one of its addresses if all of them are allowed.

        Raises:
            RefusedImage: one of the addresses is not allowed.
            httpcore.ConnectError, httpcore.ConnectTimeout: the host has no address, or no address answers.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._allow_private and not all(map(is_public, addresses)):
            raise RefusedImage(_PRIVATE)
        problem: Exception = httpcore.ConnectError("no address")
        for address in addresses:
            try:
                left_s = _left_s(timeout, httpcore.ConnectTimeout)
                return PunctualStream(super().connect_tcp(address, port, left_s, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem


class Web:
    """Sends GET and HEAD requests to URLs below the roots.

    Args:
        roots: the setting; each hop of a redirect must be below a root.
        allow_private: whether to connect to addresses that are not public.
        total_s: the time for one request with all its redirects, whatever the server does.
    """

    def __init__(self, roots: Roots, *, allow_private: bool, total_s: float = TOTAL_S) -> None:
        self._roots = roots
        self._total_s = total_s
        self._pool = httpcore.ConnectionPool(
            max_connections=POOL, keepalive_expiry=15, network_backend=PinnedBackend(allow_private=allow_private)
        )

    def allows(self, url: Url) -> bool:
        """Whether a URL of the web or of a bucket is below a root."""
        return allows(url, self._roots)

    def reads(self, root: Path | Url) -> bool:
        """Whether a dataset's root, a real path or a URL, is below a root."""
        try:
            require_root(str(root), self._roots)
        except OutsideRoots:
            return False
        return True

    def read(self, url: Url, *, max_bytes: int) -> bytes:
        """The bytes at a URL.

        Raises:
            RefusedImage: the reason is not_found, permission_denied, unreachable or too_large.
            Unavailable: this process has too many files open.
        """
        with self._response("GET", url) as response:
            return b"".join(_limited(response, max_bytes))

    def open(self, url: Url) -> IO[bytes]:
        """A temporary copy of the file at a URL, for reading at any position; closing deletes it.

        Raises:
            InvalidRequest: the file cannot be fetched, or has more than `MAX_MANIFEST_BYTES`.
            Unavailable: this machine has no room for it, or too many files are open.
        """
        with ExitStack() as opened:
            try:
                file = opened.enter_context(tempfile.TemporaryFile())
                with self._response("GET", url) as response:
                    file.writelines(_limited(response, MAX_MANIFEST_BYTES))
                file.seek(0)
            except RefusedImage as error:
                raise InvalidRequest(f"{url.name!r} cannot be fetched: {error.detail}") from None
            except OSError as error:
                raise_shortage(error)
                problem = os.strerror(error.errno or errno.EIO).lower()
                raise Unavailable(f"{url.name!r} cannot be copied to this machine: {problem}") from None
            opened.pop_all()
        return file

    def stat(self, url: Url) -> tuple[int, int]:
        """The size and change mark (from the entity tag or the time of change), both -1 if the server lacks one."""
        try:
            with self._response("HEAD", url) as response:
                size_bytes = int(_header(response, b"content-length") or -1)
                mark = _mark(response)
        except (RefusedImage, ValueError):
            return UNKNOWN
        return (size_bytes, mark) if size_bytes >= 0 and mark is not None else UNKNOWN

    def post(self, url: Url, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a body to a URL below a root; redirects are not followed, and the answer's body is not read.

        Raises:
            RefusedImage: the reason is permission_denied or unreachable: the receiver did not answer with a 2xx status.
        """
        if not self.allows(url):
            raise RefusedImage("permission_denied: the URL is not below DATASET_ROOTS")
        before = _deadline.set(time.monotonic() + min(self._total_s, POST_S))
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": POST_S}
        sent = {"Host": url.host, "User-Agent": "constellate", "Content-Length": str(len(body)), **headers}
        try:
            asked = self._pool.stream(
                "POST", str(url), headers=list(sent.items()), content=body, extensions={"timeout": timeouts}
            )
            with asked as response:
                if not 200 <= response.status < 300:
                    raise RefusedImage(f"unreachable: the receiver answered with HTTP status {response.status}")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise_shortage(error)
            raise RefusedImage(f"unreachable: the receiver does not answer ({type(error).__name__})") from None
        finally:
            _deadline.reset(before)

    @contextmanager
    def _response(self, method: str, url: Url) -> Iterator[httpcore.Response]:
        """Follow redirects, and yield the final answer, which has status 200; the time runs until its body is read."""
        before = _deadline.set(time.monotonic() + self._total_s)
        try:
            with self._final(method, url) as response:
                yield response
        finally:
            _deadline.reset(before)

    @contextmanager
    def _final(self, method: str, url: Url) -> Iterator[httpcore.Response]:
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": self._total_s}
        headers = {"Host": url.host, "Accept-Encoding": "identity", "User-Agent": "constellate"}
        for _ in range(MAX_REDIRECTS + 1):
            if not self.allows(url):
                raise RefusedImage("permission_denied: the URL, or one it redirects to, is not below DATASET_ROOTS")
            try:
                asked = self._pool.stream(
                    method, str(url), headers=list(headers.items()), extensions={"timeout": timeouts}
                )
                with asked as response:
                    if response.status not in _REDIRECTS:
                        _require_ok(response.status)
                        yield response
                        return
                    url = _next(url, _header(response, b"location"))
                    headers["Host"] = url.host
            except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
                raise_shortage(error)
                raise RefusedImage(f"unreachable: the server does not answer ({type(error).__name__})") from None
        raise RefusedImage(f"unreachable: more than {MAX_REDIRECTS} redirects")


def _limited(response: httpcore.Response, max_bytes: int) -> Iterator[bytes]:
    """The pieces of the body; a body that is too large is refused."""
    n_bytes = 0
    declared = _header(response, b"content-length") or "0"
    if declared.isdigit():
        check_size(int(declared), max_bytes)
    for piece in response.iter_stream():
        n_bytes += len(piece)
        if n_bytes > max_bytes:
            raise RefusedImage(f"too_large: the file has more than {max_bytes:,} bytes")
        yield piece


def _next(url: Url, location: str | None) -> Url:
    try:
        target = parse(urljoin(str(url), location or ""), with_query=True)
    except (InvalidRequest, ValueError):
        raise RefusedImage("unreachable: the server redirects to what is no URL") from None
    if (url.scheme, target.scheme) != ("http", "https") and url.scheme != target.scheme:
        raise RefusedImage("unreachable: the server redirects to a less safe kind of URL")
    return target


def _require_ok(status: int) -> None:
    if status in (404, 410):
        raise RefusedImage("not_found: it is not there")
    if status in (401, 403, 407):
        raise RefusedImage("permission_denied: the server does not give it to the service")
    if status != 200:
        raise RefusedImage(f"unreachable: the server answered with HTTP status {status}")


def _mark(response: httpcore.Response) -> int | None:
    tag = _header(response, b"etag")
    if tag:
        return change_mark(tag)
    try:
        return int(parsedate_to_datetime(_header(response, b"last-modified") or "").timestamp()) * 10**9
    except (TypeError, ValueError):
        return None


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


NO_WEB = Web((), allow_private=False)
"""A `Web` that allows no URL, for datasets that name none."""
