import asyncio
import json
import logging

import httpx
import pytest
from starlette.responses import JSONResponse, StreamingResponse

from serve_app import logs
from serve_app.api import guards
from serve_app.api.envelope import Envelope
from serve_app.config import Settings
from tests.unit.api.conftest import BASE_URL


async def echo(scope, receive, send):
    """Answer with the path and the body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await JSONResponse({"path": scope["path"], "n_bytes": len(body)})(scope, receive, send)


def guarded(app=echo, **settings):
    return Envelope(guards.Gate(guards.BodyGuard(app), Settings(**settings)))


def client_of(app, **kwargs):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL, **kwargs)


async def ask(method, path="/datasets", *, app=None, headers=None, content=None):
    async with client_of(app or guarded()) as client:
        return await client.request(method, path, headers=headers, content=content)


def assert_problem(answer, status, code):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "about:blank"
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8000", "localhost:9", "LOCALHOST", "[::1]:8000", "127.8.9.1", "photos.example:8000"],
)
async def test_requests_that_name_this_host_pass(host):
    answer = await ask("GET", app=guarded(host="photos.example"), headers={"Host": host})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7", "localhost.evil.example:8000"])
async def test_a_rebound_name_is_misdirected(host):
    assert_problem(await ask("GET", headers={"Host": host}), 421, "misdirected_request")


@pytest.mark.parametrize("host", ["", "a b", "[::1", "localhost:port", "user@localhost", "localhost/", "é"])
async def test_a_malformed_host_is_a_bad_request(host):
    assert_problem(await ask("GET", headers={"Host": host.encode()}), 400, "bad_request")


@pytest.mark.parametrize(("host", "status"), [("192.168.3.4:8000", 200), ("evil.example", 421)])
async def test_a_service_on_all_addresses_answers_to_addresses_but_not_to_foreign_names(host, status):
    assert (await ask("GET", app=guarded(host="0.0.0.0"), headers={"Host": host})).status_code == status


async def test_a_service_on_all_addresses_with_a_key_answers_to_any_name():
    headers = {"Host": "photos.example", "Authorization": "Bearer k"}
    assert (await ask("GET", app=guarded(host="0.0.0.0", api_key="k"), headers=headers)).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8000"])
async def test_pages_of_other_origins_change_nothing(method, origin):
    assert_problem(await ask(method, headers={"Origin": origin}), 403, "forbidden")


@pytest.mark.parametrize("origin", [BASE_URL, "https://127.0.0.1:8000"])
async def test_the_own_page_may_change_things(origin):
    assert (await ask("POST", headers={"Origin": origin})).status_code == 200


async def test_reading_asks_for_no_origin():
    assert (await ask("GET", headers={"Origin": "http://evil.example"})).status_code == 200


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", "Basic secret", "secret", "Bearer secret2", "Bearer sécret"]
)
async def test_a_wrong_api_key_is_unauthorized(authorization):
    headers = {"Authorization": authorization.encode()} if authorization is not None else {}
    answer = await ask("GET", app=guarded(api_key="secret"), headers=headers)
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "secret" not in answer.text


@pytest.mark.parametrize("authorization", ["Bearer secret", "bearer secret", "BEARER  secret"])
async def test_the_right_api_key_passes_whatever_the_case_of_the_scheme(authorization):
    answer = await ask("GET", app=guarded(api_key="secret"), headers={"Authorization": authorization})
    assert answer.status_code == 200


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/readyz", 401), ("/", 401), ("/openapi.json", 401)])
async def test_only_healthz_is_open_where_there_is_a_key(path, status):
    assert (await ask("GET", path, app=guarded(api_key="secret"))).status_code == status


async def test_a_browser_gets_the_page_that_asks_for_the_key_as_the_body_of_the_401():
    """A browser cannot send a key with the first request of a page, so with a key the page could not be opened."""
    app = guarded(api_key="secret")
    page = await ask("GET", "/", app=app, headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page.json()["path"]) == (401, "/")
    assert page.headers["www-authenticate"] == "Bearer"
    assert (await ask("GET", "/static/main.js", app=app)).status_code == 200
    assert (await ask("GET", "/datasets", app=app, headers={"Accept": "text/html"})).json()["code"] == "unauthorized"


async def test_the_key_is_checked_before_the_body():
    headers = {"Content-Type": "application/json"}
    answer = await ask("POST", app=guarded(api_key="secret"), headers=headers, content=b"{")
    assert answer.status_code == 401


async def test_json_passes_whole():
    body = json.dumps({"name": "x" * 5000}).encode()
    answer = await ask("POST", headers={"Content-Type": "application/json; charset=utf-8"}, content=body)
    assert answer.json() == {"path": "/datasets", "n_bytes": len(body)}


async def test_malformed_json_is_a_problem():
    answer = await ask("POST", headers={"Content-Type": "application/json"}, content=b'{"a": NaN}')
    assert_problem(answer, 400, "malformed_json")


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_only_json_is_taken_where_json_belongs(content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert_problem(await ask("POST", headers=headers, content=b"{}"), 415, "unsupported_media_type")


async def test_a_search_takes_a_form_or_json():
    headers = {"Content-Type": "text/plain"}
    answer = await ask("POST", "/datasets/d/search", headers=headers, content=b"{}")
    assert_problem(answer, 415, "unsupported_media_type")


async def test_compressed_bodies_are_refused():
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_problem(await ask("POST", headers=headers, content=b"\x1f\x8b"), 415, "unsupported_media_type")


async def chunks(n_bytes, chunk=65536):
    for start in range(0, n_bytes, chunk):
        yield b" " * min(chunk, n_bytes - start)


LIMITED = [
    ("/datasets", "application/json", guards.MIB),
    ("/datasets/d/search", "multipart/form-data", 10 * guards.MIB),
    ("/v1/embed/images/bytes", "multipart/form-data", 32 * guards.MIB),
    ("/v1/embeddings", "application/json", 16 * guards.MIB),
]


@pytest.mark.parametrize(("path", "content_type", "limit_bytes"), LIMITED)
async def test_a_body_declared_too_large_is_refused_unread(path, content_type, limit_bytes):
    headers = {"Content-Type": content_type, "Content-Length": str(limit_bytes + 1)}
    assert_problem(await ask("POST", path, headers=headers, content=chunks(10)), 413, "too_large")


@pytest.mark.parametrize(("path", "content_type", "limit_bytes"), LIMITED)
async def test_a_body_that_declares_nothing_is_counted(path, content_type, limit_bytes):
    headers = {"Content-Type": content_type, "Transfer-Encoding": "chunked"}
    answer = await ask("POST", path, headers=headers, content=chunks(limit_bytes + 1))
    assert_problem(answer, 413, "too_large")


async def test_an_upload_up_to_the_limit_passes():
    headers = {"Content-Type": "multipart/form-data", "Transfer-Encoding": "chunked"}
    answer = await ask("POST", "/datasets/d/search", headers=headers, content=chunks(10 * guards.MIB))
    assert answer.json()["n_bytes"] == 10 * guards.MIB


@pytest.mark.parametrize("declared", [True, False])
async def test_large_bodies_beyond_what_the_process_may_hold_are_to_come_later(monkeypatch, declared):
    monkeypatch.setattr(guards, "MAX_HELD_BYTES", 10 * guards.MIB)
    arrived, released = asyncio.Event(), asyncio.Event()

    async def held(scope, receive, send):
        async def send_later(message):
            arrived.set()
            await released.wait()
            await send(message)

        await echo(scope, receive, send_later)

    async def upload():
        return await ask("POST", "/datasets/d/search", app=app, headers=headers, content=chunks(10 * guards.MIB))

    app = guarded(held)
    length = {"Content-Length": str(10 * guards.MIB)} if declared else {"Transfer-Encoding": "chunked"}
    headers = {"Content-Type": "multipart/form-data"} | length
    first = asyncio.create_task(upload())
    await arrived.wait()
    second = await upload()
    assert_problem(second, 429, "saturated")
    assert second.headers["retry-after"]
    released.set()
    assert (await first).status_code == 200
    assert (await upload()).status_code == 200


async def test_bodies_that_drip_do_not_keep_others_out(monkeypatch):
    """A body counts for what has arrived of it, not for what it declares."""
    monkeypatch.setattr(guards, "MAX_HELD_BYTES", 10 * guards.MIB)
    begun = asyncio.Queue()

    async def dripping():
        yield b"-"
        begun.put_nowait(None)
        await asyncio.Event().wait()

    async def upload(content):
        headers = {"Content-Type": "multipart/form-data", "Content-Length": str(9 * guards.MIB)}
        return await ask("POST", "/datasets/d/search", app=app, headers=headers, content=content)

    app = guarded()
    slow = [asyncio.create_task(upload(dripping())) for _ in range(32)]
    for _ in slow:
        await begun.get()
    assert (await upload(chunks(9 * guards.MIB))).status_code == 200
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert (await upload(chunks(9 * guards.MIB))).status_code == 200


async def test_bodies_that_were_begun_together_are_refused_where_room_ends(monkeypatch):
    monkeypatch.setattr(guards, "MAX_HELD_BYTES", guards.MIB)
    headers = {"Content-Type": "multipart/form-data", "Transfer-Encoding": "chunked"}
    app = guarded()
    answer = await ask("POST", "/datasets/d/search", app=app, headers=headers, content=chunks(guards.MIB + 1))
    assert_problem(answer, 429, "saturated")
    assert answer.headers["retry-after"]
    answer = await ask("POST", "/datasets/d/search", app=app, headers=headers, content=chunks(guards.MIB))
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/v1/embeddings", "/datasets/d/search", "/datasets/d/columns"])
async def test_a_body_that_never_stalls_but_never_ends_times_out(monkeypatch, path):
    monkeypatch.setattr(guards, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(guards, "SLOWEST_BYTES_PER_S", 1 << 40)

    async def endless():
        while True:
            yield b" "
            await asyncio.sleep(0)

    kind = {"/v1/embeddings": "application/json", "/datasets/d/columns": "text/csv"}.get(path, "multipart/form-data")
    headers = {"Content-Type": kind, "Content-Length": "1000000"}
    assert_problem(await ask("POST", path, headers=headers, content=endless()), 408, "request_timeout")


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "9" * 30])
async def test_a_malformed_content_length_is_a_bad_request(length):
    headers = {"Content-Type": "application/json", "Content-Length": length}
    assert_problem(await ask("POST", headers=headers, content=chunks(1)), 400, "bad_request")


async def test_a_body_that_stalls_times_out(monkeypatch):
    monkeypatch.setattr(guards, "BODY_IDLE_TIMEOUT_S", 0.01)

    async def stalled():
        yield b"{"
        await asyncio.Event().wait()

    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    assert_problem(await ask("POST", headers=headers, content=stalled()), 408, "request_timeout")


async def test_waiting_for_a_disconnect_after_the_body_never_times_out(monkeypatch):
    monkeypatch.setattr(guards, "BODY_IDLE_TIMEOUT_S", 0.001)
    gone = asyncio.Event()

    async def receive():
        if not body:
            await gone.wait()
            return {"type": "http.disconnect"}
        return body.pop()

    body = [{"type": "http.request", "body": b"ab", "more_body": False}]
    counted = guards._counted(receive, 10, 60, lambda n_bytes: None)
    assert (await counted())["body"] == b"ab"
    waiting = asyncio.create_task(counted())
    await asyncio.wait({waiting}, timeout=0.02)
    assert not waiting.done()
    gone.set()
    assert (await waiting)["type"] == "http.disconnect"


async def fail(scope, receive, send):
    raise RuntimeError("SELECT secret FROM /etc/passwd")


async def test_an_unforeseen_error_is_a_bare_500_and_logged_once(caplog):
    with caplog.at_level(logging.ERROR):
        answer = await ask("GET", app=guarded(fail))
    assert_problem(answer, 500, "internal")
    assert "secret" not in answer.text
    [record] = caplog.records
    assert record.exc_info is not None
    assert answer.json()["request_id"] in record.getMessage()


async def test_a_path_cannot_forge_log_lines(caplog):
    await ask("GET", "/a%0d%0aforged%c2%85line", app=guarded(fail))
    assert len(caplog.records[0].getMessage().splitlines()) == 1


async def test_an_error_in_the_middle_of_a_stream_breaks_the_connection():
    async def torn(scope, receive, send):
        async def content():
            yield b"half"
            raise RuntimeError("gone")

        await StreamingResponse(content())(scope, receive, send)

    with pytest.raises(RuntimeError, match="gone"):
        await ask("GET", app=guarded(torn))


async def test_every_answer_carries_the_browser_headers_and_a_request_id():
    answer = await ask("GET")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert len(answer.headers["x-request-id"]) == 32


async def test_a_callers_request_id_is_kept_in_problems_and_left_to_the_proxy_to_answer():
    answer = await ask("GET", headers={"X-Request-ID": "abc-1", "Host": "evil.example"})
    assert answer.json()["request_id"] == "abc-1"
    assert "x-request-id" not in answer.headers


@pytest.mark.parametrize("given", ["a b", "x" * 65, "<script>", "é"])
async def test_an_odd_request_id_is_replaced(given):
    answer = await ask("GET", headers={"X-Request-ID": given.encode(), "Host": "evil.example"})
    assert len(answer.json()["request_id"]) == 32


async def test_other_protocols_pass_untouched():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    await guarded(app)({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


def lines_of(caplog):
    return [(record.levelname, record.getMessage().rpartition(" in ")[0]) for record in caplog.records]


async def test_requests_that_change_something_or_are_refused_leave_a_line(caplog):
    with caplog.at_level(logging.INFO, "serve_app"):
        await ask("GET")
        await ask("POST", "/datasets/a/embeddings/generate")
        await ask("GET", "/jobs", headers={"Host": "evil.example"})
        await ask("GET", "/healthz", headers={"Host": "evil.example"})
    assert lines_of(caplog) == [
        ("INFO", "POST '/datasets/a/embeddings/generate': 200"),
        ("INFO", "GET '/jobs': 421"),
    ]


async def test_what_is_logged_during_a_request_carries_its_id():
    seen = []

    async def app(scope, receive, send):
        seen.append(logs.ids())
        await echo(scope, receive, send)

    await ask("GET", app=guarded(app), headers={"X-Request-ID": "abc-1"})
    assert seen == [{"request_id": "abc-1"}]
    assert logs.ids() == {}
