"""HEAD answers as GET does, without the body (RFC 9110, 9.3.2)."""

import asyncio

import pytest
from fastapi.routing import APIRoute

from serve_app.api.guards import Head


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/datasets", "/jobs", "/openapi.json", "/v1/models", "/nothing"]
)
async def test_head_has_the_status_and_headers_of_get_and_no_body(client, path):
    got, headed = await client.get(path), await client.head(path)

    assert headed.status_code == got.status_code
    assert headed.headers["Content-Type"] == got.headers["Content-Type"]
    assert not headed.content


async def test_every_route_that_takes_get_takes_head(client, app):
    paths = {route.path for route in app.state.routes if isinstance(route, APIRoute) and "GET" in route.methods}
    assert len(paths) > 10
    statuses = {path: (await client.head(path.replace("{", "").replace("}", ""))).status_code for path in paths}
    assert 405 not in statuses.values()


async def test_head_where_only_post_is_taken_is_not_allowed(client):
    answer = await client.head("/v1/embeddings")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


async def test_head_of_a_stream_ends_after_its_headers_and_frees_the_stream():
    freed = asyncio.Event()
    sent = []

    async def endless(scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await asyncio.Event().wait()
        finally:
            freed.set()

    async def send(message):
        sent.append(message)

    async with asyncio.timeout(20):
        await Head(endless)({"type": "http", "method": "HEAD", "path": "/"}, None, send)

    assert freed.is_set()
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]


async def test_an_error_before_the_headers_comes_out():
    async def broken(scope, receive, send):
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await Head(broken)({"type": "http", "method": "HEAD", "path": "/"}, None, None)
