"""A client that reads an answer while it is being sent, which httpx's ASGI transport does not.

The path goes to the application as it is: no client tidies it up.
"""

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import unquote

import httpx
from httpx_sse import EventSource


class Answer:
    """What has arrived of an answer so far."""

    def __init__(self):
        self.status = None
        self.headers = {}
        self.chunks = asyncio.Queue()
        self.has_begun = asyncio.Event()
        self.left = asyncio.Event()
        self.error_on_leaving = None

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.has_begun.set()
        elif message["type"] == "http.response.body":
            await self.chunks.put(message.get("body", b""))
            if not message.get("more_body", False):
                await self.chunks.put(None)

    async def receive(self):
        await self.left.wait()
        if self.error_on_leaving:
            raise self.error_on_leaving
        return {"type": "http.disconnect"}

    async def body(self):
        """The chunks up to the end."""
        while (chunk := await asyncio.wait_for(self.chunks.get(), 60)) is not None:
            yield chunk

    async def json(self):
        """The whole body."""
        return json.loads(b"".join([chunk async for chunk in self.body()]))

    async def events(self):
        """Server-sent events, as httpx-sse reads them."""
        response = httpx.Response(self.status, headers=self.headers, content=self.body())
        async for event in EventSource(response).aiter_sse():
            yield event


@asynccontextmanager
async def opened(app, path, *, method="GET", headers=None):
    """Send a request and give its answer once the head is there; leaving disconnects."""
    answer = Answer()
    given = {"host": "127.0.0.1:8000"} | (headers or {})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 8000),
    }
    task = asyncio.create_task(app(scope, answer.receive, answer.send))
    try:
        await asyncio.wait_for(answer.has_begun.wait(), 60)
        yield answer
    finally:
        answer.left.set()
        await asyncio.wait_for(task, 60)
