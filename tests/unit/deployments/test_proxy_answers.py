"""What Serve's proxy answers by itself: never that a dataset is gone, never a list of what runs."""

from types import SimpleNamespace

import httpx
import pytest
from ray.serve._private.proxy import HTTPProxy
from starlette.responses import PlainTextResponse

from deployments.proxy import ROUTES_PATH, Silenced

DATASET = "/datasets/d1"


async def without_routes(scope, receive, send):
    """Ray's own answer of a proxy that knows no routes yet."""
    async for message in HTTPProxy.not_found_response(None, SimpleNamespace(path=scope["path"])):
        if isinstance(message, dict):
            await send(message)


async def ask(app, path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        return await client.get(path)


async def test_a_proxy_without_routes_asks_to_come_again():
    """Ray's 404 in plain text looked as if the dataset were gone, and ended a soak of half an hour."""
    assert (await ask(without_routes, DATASET)).status_code == 404

    answer = await ask(Silenced(without_routes), DATASET)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["Content-Length"]) == len(answer.content)


@pytest.mark.parametrize("text", ["no such dataset", "Path '/x' not found.", ""])
async def test_other_answers_of_404_stay_as_they_are(text):
    answer = await ask(Silenced(PlainTextResponse(text, 404, {"X-Of": "app"})), DATASET)

    assert (answer.status_code, answer.text, answer.headers["X-Of"]) == (404, text, "app")


async def test_the_proxy_does_not_list_its_applications():
    answer = await ask(Silenced(PlainTextResponse("{'/': 'api'}")), ROUTES_PATH)

    assert answer.status_code == 404
    assert "api" not in answer.text
