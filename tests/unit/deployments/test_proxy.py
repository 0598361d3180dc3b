"""Clients that are connected and take nothing: dropped by the kernel after a time that depends on the answer."""

import asyncio
import socket
import sys
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn

from deployments.proxy import Undelivered

EVENT = b"data: x\n\n" * 3000
ROOM_BYTES = 1 << 17
SHORT_S, LONG_S = 0.5, 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is an option of Linux")


class Streaming:
    """An application that sends until its client has gone."""

    def __init__(self, content_type):
        self.headers = [(b"Content-Type", content_type)]
        self.gone = asyncio.Event()

    async def __call__(self, scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        sending = asyncio.create_task(self._send(send))
        assert (await receive())["type"] == "http.disconnect"
        sending.cancel()
        self.gone.set()

    async def _send(self, send):
        while True:
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
            await asyncio.sleep(0.005)


@asynccontextmanager
async def served(app):
    """The port of a uvicorn that serves `app` as Serve's proxy does."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        Undelivered(app, stream_s=SHORT_S, other_s=LONG_S), lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve(sockets=[listener]))  # `serve` would take over the signals
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


async def connected(port):
    """A client that has asked, with room for a few events."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    return client


async def test_a_reader_of_a_stream_who_takes_nothing_is_dropped():
    app = Streaming(b"text/event-stream; charset=utf-8")
    async with served(app) as port:
        frozen = await connected(port)
        async with asyncio.timeout(20):
            await app.gone.wait()
        frozen.close()


async def test_a_slow_reader_is_not():
    app = Streaming(b"text/event-stream; charset=utf-8")
    async with served(app) as port:
        slow = await connected(port)
        loop = asyncio.get_running_loop()
        for _ in range(12):
            assert await loop.sock_recv(slow, ROOM_BYTES)
            with suppress(TimeoutError):
                await asyncio.wait_for(app.gone.wait(), SHORT_S / 2)
            assert not app.gone.is_set()
        slow.close()
        await app.gone.wait()


async def test_a_download_may_be_paused():
    app = Streaming(b"application/octet-stream")
    async with served(app) as port:
        paused = await connected(port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(app.gone.wait(), 6 * SHORT_S)
        paused.close()
        await app.gone.wait()
