"""Images and manifests of the web: what is fetched, and what the service will not be made to ask."""

import contextlib
import http.server
import socket
import threading

import pytest

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.records import SourceFile
from serve_app.sources import web
from serve_app.sources.reading import Reader
from serve_app.sources.web import Web
from serve_app.urls import parse

MAX_BYTES = 1000


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers what its server's `pages` say: a status, headers and a body for each path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.command, self.path, self.headers["Host"]))
        status, headers, body = self.server.pages.get(self.path, (404, {}, b""))
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        server.daemon_threads = True
        server.pages, server.asked = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pages(server):
    return server.pages


@pytest.fixture
def intranet(server):
    """Allowed to ask this machine, as tests and intranets must be."""
    return Web((server.url,), allow_private=True)


def refusal(call):
    with pytest.raises(RefusedImage) as caught:
        call()
    return caught.value.reason


def image(server, web, path="/a.jpg", *, max_bytes=MAX_BYTES):
    return web.read(parse(server.url + path, with_query=True), max_bytes=max_bytes)


def test_an_image_is_fetched(server, pages, intranet):
    pages["/a%20b.jpg?size=1"] = (200, {}, b"picture")
    assert image(server, intranet, "/a%20b.jpg?size=1") == b"picture"
    assert server.asked == [("GET", "/a%20b.jpg?size=1", server.url.removeprefix("http://"))]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((404, {}, b""), "not_found"),
        ((403, {}, b""), "permission_denied"),
        ((500, {}, b"secret"), "unreachable"),
        ((206, {}, b"part"), "unreachable"),
        ((200, {}, b"x" * 1001), "too_large"),
        ((200, {"Content-Length": "999999999"}, b""), "too_large"),
        ((302, {}, b""), "unreachable"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "unreachable"),
        ((302, {"Location": "http://user:secret@host/"}, b""), "unreachable"),
        ((302, {"Location": "/a.jpg"}, b""), "unreachable"),
    ],
)
def test_what_is_no_answer_is_a_skip_with_a_reason(server, pages, intranet, answer, reason):
    pages["/a.jpg"] = answer
    assert refusal(lambda: image(server, intranet)) == reason


def test_a_body_without_a_length_stops_at_the_limit(server, pages, intranet):
    pages["/a.jpg"] = (
        200,
        {"Transfer-Encoding": "chunked", "Content-Length": None},
        b"fff\r\n" + b"x" * 0xFFF + b"\r\n0\r\n\r\n",
    )
    assert refusal(lambda: image(server, intranet)) == "too_large"


def test_a_server_that_is_away_is_unreachable(server, intranet):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert refusal(lambda: Web((url,), allow_private=True).read(parse(url + "/a"), max_bytes=1)) == "unreachable"


def test_redirects_are_followed_below_the_roots_only(server, pages, intranet):
    pages["/a.jpg"] = (302, {"Location": "b.jpg"}, b"")
    pages["/b.jpg"] = (200, {}, b"picture")
    assert image(server, intranet) == b"picture"
    other = server.url.replace("127.0.0.1", "127.0.0.2")
    pages["/a.jpg"] = (302, {"Location": f"{other}/b.jpg"}, b"")
    assert refusal(lambda: image(server, intranet)) == "permission_denied"
    assert all(host == server.url.removeprefix("http://") for _, _, host in server.asked)


def test_a_redirect_to_a_less_safe_url_is_not_followed():
    with pytest.raises(RefusedImage, match="less safe"):
        web._next(parse("https://host/a"), "http://host/a")
    assert str(web._next(parse("http://host/a"), "https://host/a")) == "https://host/a"


def test_private_addresses_are_not_asked(server, pages):
    pages["/a.jpg"] = (200, {}, b"secret")
    port = server.server_port
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "0.0.0.0"):
        everything = Web(("http://",), allow_private=False)
        with pytest.raises(RefusedImage) as caught:
            everything.read(parse(f"http://{host}:{port}/a.jpg"), max_bytes=MAX_BYTES)
        assert "CONSTELLATE_ALLOW_PRIVATE_URLS" in caught.value.detail
    assert server.asked == []


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def dripping():
    """Starts servers that send a beginning and then the same bytes again and again, until their client has gone."""
    listeners, threads, let_go = [], [], threading.Event()

    def serve(listener, beginning, drop):
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(beginning)
            while not let_go.wait(0.01):
                client.sendall(drop)

    def start(beginning, drop):
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        threads.append(threading.Thread(target=serve, args=(listeners[-1], beginning, drop)))
        threads[-1].start()
        return f"http://127.0.0.1:{listeners[-1].getsockname()[1]}"

    yield start, threads
    let_go.set()
    for listener, thread in zip(listeners, threads, strict=True):
        thread.join()
        listener.close()


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        pytest.param(HEAD + b"X-Drip: ", b"x", id="a header that never ends"),
        pytest.param(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", id="endless 103s"),
        pytest.param(HEAD + b"Content-Length: 900\r\n\r\n", b"x", id="a body, byte by byte"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="a chunked body"),
    ],
)
def test_a_server_that_drips_holds_a_thread_for_the_time_of_one_request_only(dripping, beginning, drop):
    """Each piece comes well within the limit of one read, and the server would go on until its client leaves."""
    start, threads = dripping
    url = start(beginning, drop)
    slow = Web((url,), allow_private=True, total_s=0.4)
    assert refusal(lambda: slow.read(parse(url + "/a.jpg"), max_bytes=MAX_BYTES)) == "unreachable"
    threads[0].join(60)
    assert not threads[0].is_alive()


def test_redirects_share_the_time_of_their_request(server, pages):
    pages["/a.jpg"] = (302, {"Location": "a.jpg"}, b"")
    assert refusal(lambda: image(server, Web((server.url,), allow_private=True, total_s=0.0))) == "unreachable"
    assert server.asked == []


def names(monkeypatch, *answers):
    """Make look-ups of any name answer these addresses, one list after another; returns the names looked up."""
    lookups, looked_up, real = iter(answers), [], socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host[0].isdigit():
            return real(host, port, *args, **kwargs)
        looked_up.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(lookups)]

    monkeypatch.setattr(web.socket, "getaddrinfo", getaddrinfo)
    return looked_up


def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch, server):
    looked_up = names(monkeypatch, ["127.0.0.1"], ["93.184.216.34", "127.0.0.1"])
    for _ in range(2):
        url = parse(f"http://inside.example.org:{server.server_port}/a.jpg")
        assert refusal(lambda url=url: Web(("http://",), allow_private=False).read(url, max_bytes=1)) == "unreachable"
    assert looked_up == ["inside.example.org"] * 2
    assert server.asked == []


def test_a_connection_goes_to_the_address_that_was_checked(monkeypatch, server, pages):
    """With DNS rebinding the second look-up answers a private address: there is no second look-up."""
    pages["/a.jpg"] = (200, {}, b"picture")
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")  # stands for a public one
    looked_up = names(monkeypatch, ["127.0.0.1"])
    real_connect, connected = socket.create_connection, []

    def create_connection(address, *args, **kwargs):
        connected.append(address[0])
        return real_connect(address, *args, **kwargs)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    rebinding = Web(("http://",), allow_private=False)
    url = parse(f"http://rebinding.example.org:{server.server_port}/a.jpg")
    assert rebinding.read(url, max_bytes=MAX_BYTES) == b"picture"
    assert looked_up == ["rebinding.example.org"]
    assert connected == ["127.0.0.1"]
    assert server.asked == [("GET", "/a.jpg", f"rebinding.example.org:{server.server_port}")]


def test_a_redirect_to_a_name_inside_is_refused(monkeypatch, server, pages):
    pages["/a.jpg"] = (302, {"Location": f"http://inside.example.org:{server.server_port}/b.jpg"}, b"")
    pages["/b.jpg"] = (200, {}, b"secret")
    checked = []

    def only_the_first(address):
        checked.append(address)
        return len(checked) == 1

    monkeypatch.setattr(web, "is_public", only_the_first)
    names(monkeypatch, ["127.0.0.1"], ["127.0.0.1"])
    url = parse(f"http://outside.example.org:{server.server_port}/a.jpg")
    assert refusal(lambda: Web(("http://",), allow_private=False).read(url, max_bytes=MAX_BYTES)) == "unreachable"
    assert [path for _, path, _ in server.asked] == ["/a.jpg"]


# Manifests


def test_a_manifest_of_the_web_names_images_beside_it_and_elsewhere(server, pages, intranet):
    other = f"{server.url}/other/c.jpg?sig=1"
    pages["/set/m.csv"] = (200, {}, f"\ufefffile_name,label\nx/a b.jpg,cat\nmissing.jpg,\n{other},dog\n".encode())
    pages["/set/x/a%20b.jpg"] = (200, {"ETag": '"1"'}, b"aa")
    pages["/other/c.jpg?sig=1"] = (200, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, b"ccc")
    root, manifest = parse(f"{server.url}/set"), parse(f"{server.url}/set/m.csv")
    assert sources.detect(root, manifest, web=intranet) == ("manifest", manifest)
    [[a, missing, c]] = list(sources.scan(root, "manifest", manifest, web=intranet))
    assert (a.sample_id, a.label, a.size_bytes) == ("x/a b.jpg", "cat", 2)
    assert missing == SourceFile("missing.jpg", "missing.jpg", None, -1, -1)
    assert c == SourceFile(other, other, "dog", 3, 1445412480 * 10**9)

    reader = Reader(Settings(dataset_roots=(server.url,), allow_private_urls=True))
    assert [reader.read(str(root), file, max_bytes=9)[0] for file in (a, c)] == [b"aa", b"ccc"]
    _, stamp = reader.read(str(root), a, max_bytes=9)
    assert (stamp.size_bytes, stamp.mtime_ns) == (a.size_bytes, a.mtime_ns)
    assert refusal(lambda: reader.read(str(root), missing, max_bytes=9)) == "not_found"
    assert reader.is_any_there(str(root), [missing, c])
    assert not reader.is_any_there(str(root), [missing])

    pages["/set/x/a%20b.jpg"] = (200, {"ETag": '"2"'}, b"bb")
    [[changed, *_]] = list(sources.scan(root, "manifest", manifest, web=intranet))
    assert (changed.size_bytes, changed.mtime_ns != a.mtime_ns) == (2, True)


def test_a_manifest_in_a_folder_may_name_urls_below_the_roots(tmp_path, server, pages, intranet):
    (tmp_path / "m.csv").write_text(f"file_name\na.jpg\n{server.url}/b.jpg\n")
    (tmp_path / "a.jpg").write_bytes(b"here")
    pages["/b.jpg"] = (200, {"ETag": "1"}, b"there")
    [files] = list(sources.scan(tmp_path, "manifest", tmp_path / "m.csv", web=intranet))
    reader = Reader(Settings(dataset_roots=(tmp_path, server.url), allow_private_urls=True))
    assert [reader.read(str(tmp_path), file, max_bytes=9)[0] for file in files] == [b"here", b"there"]
    assert reader.examine(str(tmp_path), files) == [(file.size_bytes, file.mtime_ns) for file in files]
    (tmp_path / "m.csv").write_text("file_name\na.jpg\nhttps://example.org/b.jpg\n")
    with pytest.raises(InvalidRequest, match=r"line 3 of 'm\.csv': this URL is not below one of DATASET_ROOTS"):
        list(sources.scan(tmp_path, "manifest", tmp_path / "m.csv", web=intranet))


def test_folders_of_the_web_cannot_be_listed(server, intranet):
    with pytest.raises(InvalidRequest, match="name a CSV or Parquet manifest"):
        sources.detect(parse(server.url), None, web=intranet)
    with pytest.raises(InvalidRequest, match="name a CSV or Parquet manifest"):
        list(sources.scan(parse(server.url), "folder", None, web=intranet))


def test_a_manifest_that_cannot_be_had_is_refused_with_the_reason(server, pages, intranet):
    url = parse(f"{server.url}/m.csv")
    with pytest.raises(InvalidRequest, match=r"'m\.csv' cannot be fetched: it is not there"):
        list(sources.scan(url.parent, "manifest", url, web=intranet))
    with pytest.raises(InvalidRequest, match="private, loopback"):
        list(sources.scan(url.parent, "manifest", url, web=Web((server.url,), allow_private=False)))
