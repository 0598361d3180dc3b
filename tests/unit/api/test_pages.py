import re

import pytest

from serve_app.api.pages import FOLDER


async def test_the_page_is_served_under_a_policy_that_loads_nothing_from_elsewhere(client):
    answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_every_file_that_the_page_names_is_served(client):
    page = (await client.get("/")).text
    names = re.findall(r'(?:src|href)="([^"#:]+)"', page)
    assert names
    for name in names:
        answer = await client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["cache-control"] == "no-cache"
        assert "default-src 'self'" in answer.headers["content-security-policy"]


async def test_a_file_the_browser_has_costs_no_bytes(client):
    tag = (await client.get("/static/index.html")).headers["etag"]
    assert (await client.get("/static/index.html", headers={"If-None-Match": tag})).status_code == 304


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/../api/guards.py", "/static/%2e%2e/config.py", "/static/"]
)
async def test_nothing_else_is_served(client, path):
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_no_script_or_style_is_inline_since_the_policy_forbids_it():
    page = (FOLDER / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\son[a-z]+=|\sstyle=", page) == []
