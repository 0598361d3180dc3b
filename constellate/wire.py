"""Transports the HTTP client's calls: connections, time limits, errors, streams that `close` can end.

This module does not know the routes.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import httpx
from httpx_sse import ServerSentEvent, SSEError, connect_sse

ANSWER_S = 60.0
# Listing a large folder on a slow disk and comparing every image with every other take long.
LONG_ANSWER_S = 600.0
# The service pings a stream every 30 s if there is no event; after three missed pings, the stream is dead.
STREAM_SILENCE_S = 90.0


class Unreachable(Exception):
    """Nothing answers at the address, or another program than Constellate answers."""


class NothingThere(Unreachable):
    """Nobody listens at the address."""


class Refused(Exception):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(status, problem)  # unpickling calls the class with both arguments
        self.status = status
        self.code = str(problem.get("code", ""))
        self.problem = problem

    def __str__(self) -> str:
        return str(self.problem.get("detail") or f"the service answered with HTTP status {self.status}")


class Wire:
    """The connections to one service. Several threads may use one `Wire`."""

    def __init__(self, url: str, *, api_key: str | None, transport: httpx.BaseTransport | None) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=_timeout(ANSWER_S),
            transport=transport,
            trust_env=False,  # otherwise a proxy from the environment would get requests to loopback too
        )
        self._streams: set[socket.socket] = set()
        self._is_closed = False

    def close(self) -> None:
        """Close the connections; a thread that waits on a stream is woken and raises `RuntimeError`."""
        self._is_closed = True
        for stream in list(self._streams):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)  # closing alone would not wake the waiting thread
        self._http.close()

    def check(self) -> None:
        """Make sure that a Constellate service answers. Raises `NothingThere`, `Unreachable`."""
        try:
            answer = self._http.get("/healthz", timeout=_timeout(5))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise NothingThere(f"no service answers at {self.url}") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"what listens at {self.url} does not answer as Constellate does: {error}") from None
        if not _is_ours(answer):
            raise Unreachable(f"what listens at {self.url} is not Constellate; choose another --port")

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | float | Sequence[str]] | None = None,
        body: Mapping[str, object] | None = None,
        files: Mapping[str, tuple[str, BinaryIO]] | None = None,
        content: BinaryIO | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> httpx.Response:
        """The answer to a request whose body is JSON, a form, or the bytes of a file.

        Raises:
            Unreachable: there is no answer.
            Refused: the answer is a problem.
        """
        self._require_open()
        with self._naming_failures():
            answer = self._http.request(
                method,
                path,
                params=params,
                json=body,
                files=files,
                content=content,
                headers={**({"Content-Type": "application/octet-stream"} if content else {}), **(headers or {})},
                timeout=_timeout(timeout_s),
            )
        _refuse_errors(answer)
        return answer

    def pages(self, path: str, fixed: Mapping[str, str] = MappingProxyType({})) -> Iterator[dict[str, Any]]:
        """The items of all pages of a listing."""
        params: dict[str, str | float] = {**fixed}
        while True:
            page = self.request("GET", path, params=params).json()
            yield from page["items"]
            if not page.get("next_cursor"):
                return
            params = {**fixed, "cursor": page["next_cursor"]}

    def download(self, path: str, target: Path, params: Mapping[str, str | Sequence[str]]) -> None:
        """Write an answer to a file; a failed call leaves no partial file. Raises `Unreachable`, `Refused`."""
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with (
                self._naming_failures(),
                self._http.stream("GET", path, params=params, timeout=_timeout(LONG_ANSWER_S)) as answer,
                unfinished.open("wb") as stream,
            ):
                _refuse_errors(answer)
                for part in answer.iter_bytes():
                    stream.write(part)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def events(self, path: str, last_event: str) -> Iterator[ServerSentEvent]:
        """The events of one connection; they end without an error if the connection drops or is refused."""
        self._require_open()
        headers = {"Last-Event-ID": last_event} if last_event else {}
        try:
            with (
                connect_sse(self._http, "GET", path, headers=headers, timeout=_timeout(STREAM_SILENCE_S)) as source,
                self._wakeable(source.response),
            ):
                if source.response.status_code == httpx.codes.OK:
                    yield from source.iter_sse()
        except (httpx.HTTPError, SSEError):
            return

    def _require_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the client is closed")

    @contextmanager
    def _wakeable(self, answer: httpx.Response) -> Iterator[None]:
        """Let `close` interrupt a thread that reads this answer."""
        network = answer.extensions.get("network_stream")
        connection = network.get_extra_info("socket") if network else None
        if connection is None:  # the transport does not use a network
            yield
            return
        self._streams.add(connection)
        try:
            yield
        finally:
            self._streams.discard(connection)

    @contextmanager
    def _naming_failures(self) -> Iterator[None]:
        """Turn httpx's errors into `Unreachable`."""
        try:
            yield
        except httpx.HTTPError as error:
            raise Unreachable(f"the service at {self.url} does not answer: {error}") from None


def _timeout(answer_s: float) -> httpx.Timeout:
    """A timeout of 5 s for connecting, which takes no time if the service runs, and `answer_s` for the answer."""
    return httpx.Timeout(answer_s, connect=5.0)


def _refuse_errors(answer: httpx.Response) -> None:
    """Raise `Refused` for an error status."""
    if not answer.is_error:
        return
    try:
        problem = json.loads(answer.read())
    except ValueError:
        problem = None
    raise Refused(answer.status_code, problem if isinstance(problem, dict) else {})


def _is_ours(answer: httpx.Response) -> bool:
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("service") == "constellate"


def given(**params: str | None) -> dict[str, str]:
    """The parameters that are not None."""
    return {name: value for name, value in params.items() if value is not None}
