"""What no generator thinks of, over real HTTP and to the end: names, paths, text, bodies, connections."""

import gzip
import io
import json
import os
import socket
from contextlib import ExitStack
from urllib.parse import quote

import numpy as np
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
import pytest
from PIL import Image

from serve_app.api import guards
from serve_app.sources.files import encode_name
from serve_app.store.filtering import MAX_CHARACTERS
from tests.fuzz.service import API_KEY

MIB = 2**20
ODD_NAMES = [
    b"line\nbreak.png",
    b"data: x\r\n\r\nevent: progress.png",
    b"tab\tand\x01control.png",
    b"'; DROP TABLE samples; --.png",
    b'"quoted", and comma.png',
    b"<script>alert(1)</script>.png".replace(b"/", b"\\"),
    b"a\\..\\..\\windows.png",
    b"%2e%2e%2fpercent.png",
    b"-rf.png",
    b"=1+1.png",
    b"bytes:caf%FF.png",
    b"caf\xff.png",
    "café.png".encode(),
    "cafe\u0301.png".encode(),
    "\U0001f339\u202egnp.png".encode(),
    b"x" * 251 + b".png",
]
SQL = ["' OR '1'='1", "'; DROP TABLE datasets; --", "embeddings", "$1", "?", "%s", "read_csv('/etc/passwd')", "x\\'"]
OUTSIDE = [
    "../../secret.png",
    "..%2f..%2fsecret.png",
    "%2e%2e/%2e%2e/secret.png",
    "..%252f..%252fsecret.png",
    "..%5c..%5csecret.png",
    "..\\..\\secret.png",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "a.png%00",
    "%00",
    "%ff",
    "%c0%ae%c0%ae/secret.png",
    "a.png/..",
    "./a.png",
    "file:///etc/passwd",
]


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def register(client, folder):
    answer = client.post("/datasets", json={"name": folder.name, "root": str(folder)})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def run(client, dataset_id, verb="generate", stream="progress"):
    """Run a job to its end and return the last event."""
    assert client.post(f"/datasets/{dataset_id}/embeddings/{verb}").status_code == 202
    lines = client.get(f"/datasets/{dataset_id}/embeddings/{stream}").text.splitlines()
    for line in lines:
        assert line == "" or line.partition(":")[0] in {"id", "event", "data", "retry", ""}, line
    return json.loads([line for line in lines if line.startswith("data: ")][-1][6:])


def test_any_file_name_goes_all_the_way(service, http_client):
    folder = service.roots / "odd names"
    folder.mkdir()
    contents = {encode_name(name): picture(i) for i, name in enumerate(ODD_NAMES)}
    for name, content in zip(ODD_NAMES, contents.values(), strict=True):
        (folder / os.fsdecode(name)).write_bytes(content)
    broken = [b"broken " + name[:100] for name in ODD_NAMES]
    for name in broken:
        (folder / os.fsdecode(name + b".png")).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    dataset_id = register(http_client, folder)
    every = set(contents) | {encode_name(name + b".png") for name in broken}

    end = run(http_client, dataset_id)
    assert (end["status"], end["processed"], end["skipped"]) == ("complete", len(every), len(broken))
    assert run(http_client, dataset_id, "reduce", "reduce/progress")["status"] == "complete"

    samples = http_client.get(f"/datasets/{dataset_id}/samples").json()["items"]
    assert {sample["file_name"] for sample in samples} == every
    skipped = http_client.get(f"/datasets/{dataset_id}/embeddings/skipped").json()["items"]
    assert {skip["file_name"] for skip in skipped} == every - set(contents)
    points = http_client.get(f"/datasets/{dataset_id}/embeddings/coordinates").json()
    assert {point["fileName"] for point in points} == set(contents)
    for point in points:
        name = point["fileName"]
        assert http_client.get(point["thumbnailPath"]).headers["content-type"] == "image/jpeg", name
        answer = http_client.get(f"/datasets/{dataset_id}/samples/{quote(name, safe='')}/image")
        assert answer.content == contents[name]
        assert answer.headers["content-disposition"].isascii()
        similar = http_client.get(f"/datasets/{dataset_id}/similarity/{quote(name, safe='')}").json()["items"]
        assert len(similar) == min(10, len(contents) - 1)
        assert name not in {neighbour["file_name"] for neighbour in similar}


def test_any_file_name_is_exported_as_it_is(service, http_client):
    [dataset_id] = [d["id"] for d in http_client.get("/datasets").json() if d["name"] == "odd names"]
    exported = {
        form: http_client.get(f"/datasets/{dataset_id}/embeddings/export", params={"format": form}).content
        for form in ("parquet", "arrow")
    }
    table = pyarrow.parquet.read_table(io.BytesIO(exported["parquet"]))
    assert set(table["file_name"].to_pylist()) == {encode_name(name) for name in ODD_NAMES}
    assert pyarrow.ipc.open_stream(exported["arrow"]).read_all().to_pylist() == table.to_pylist()
    text = io.BytesIO()
    pyarrow.csv.write_csv(table.select(["sample_id", "file_name"]), text)
    parsed = pyarrow.csv.ParseOptions(newlines_in_values=True)
    read = pyarrow.csv.read_csv(io.BytesIO(text.getvalue()), parse_options=parsed)
    assert read["file_name"].to_pylist() == table["file_name"].to_pylist()


@pytest.fixture(scope="module")
def album(service, http_client):
    """The id of a dataset of one image, beside a file that is not in it."""
    (service.roots.parent / "secret.png").write_bytes(picture(99))
    folder = service.roots / "album"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(1))
    dataset_id = register(http_client, folder)
    run(http_client, dataset_id)
    return dataset_id


@pytest.mark.parametrize("route", ["samples/{}/image", "samples/{}/thumbnail", "similarity/{}"])
def test_no_spelling_of_a_path_leads_out(raw, album, route):
    for target in OUTSIDE:
        there, absent = (
            raw("GET", f"/datasets/{album}/{route.format(name)}", headers={"X-Request-ID": "same"})
            for name in (target, target.replace("secret", "absent"))
        )
        assert there[0] == 404, (target, there)
        assert json.loads(there[1])["code"] in ("sample_not_found", "not_found"), target
        assert there[1].replace(b"secret", b"absent") == absent[1]


@pytest.mark.parametrize("target", ["/static/../api/__init__.py", "/static/%2e%2e/api/__init__.py", "/static/..%5capi"])
def test_the_pages_files_are_all_that_is_below_static(raw, target):
    assert raw("GET", target)[0] == 404


def test_text_like_sql_is_text(service, http_client, album):
    before = http_client.get("/datasets").json()
    folder = service.roots / "'; DROP TABLE samples; --"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(2))
    for text in SQL:
        made = http_client.post("/datasets", json={"name": text, "root": str(folder)})
        assert made.json()["name"] == text
        dataset_id = made.json()["id"]
        embeddings = f"/datasets/{dataset_id}/embeddings"
        asked = [
            http_client.post("/datasets", json={"name": "n", "root": text, "format": "auto"}),
            http_client.post("/datasets", json={"name": "n", "root": str(folder), "annotations": text}),
            http_client.post("/datasets", json={"name": "n", "root": str(folder), "format": text}),
            http_client.post(f"{embeddings}/generate", json={"model_name": text}),
            http_client.post(f"{embeddings}/reduce", json={"metric": text}),
            http_client.post(f"{embeddings}/import", params={"space_key": text, "model_name": text}, content=b""),
            http_client.get(f"{embeddings}/export", params={"format": text}),
            http_client.get(f"{embeddings}/skipped", params={"cursor": text}),
            http_client.get(f"/datasets/{dataset_id}/samples", params={"limit": text}),
            http_client.get(f"/datasets/{quote(text, safe='')}"),
            http_client.get(f"/jobs/{quote(text, safe='')}"),
            http_client.get(f"/datasets/{dataset_id}/samples/{quote(text, safe='')}/image"),
            http_client.get(f"/datasets/{dataset_id}/similarity/{quote(text, safe='')}"),
            http_client.post("/v1/embeddings", json={"model": text, "input": text, "user": text}),
            http_client.post(f"/datasets/{album}/search", files={text: ("a.png", picture(3))}),
        ]
        assert {answer.status_code for answer in asked} <= {400, 403, 404, 415, 422}, [a.text for a in asked]
        assert http_client.post(f"/datasets/{album}/search", files={"file": (text, picture(3))}).status_code == 200
        assert http_client.delete(f"/datasets/{dataset_id}").status_code == 204
    assert http_client.get("/datasets").json() == before


def chunked(n_bytes):
    for _ in range(n_bytes // MIB):
        yield b" " * MIB


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Encoding": "gzip"}, gzip.compress(b" " * 10 * MIB, mtime=0), 415),
        ({"Content-Encoding": "deflate"}, b"{}", 415),
        ({}, b"[" * 100_000, 400),
        ({}, b'{"name": ' + b"9" * 5000 + b"}", 400),
        ({}, b'{"name": "a", "name": "b"}', 400),
        ({}, b"\xef\xbb\xbf{}", 400),
        ({}, b'{"name": "\xff"}', 400),
        ({}, rb'{"name": "\ud800", "root": "x"}', 422),
        ({}, b'{"name": 1e400}', 400),
        ({}, b'{"name": NaN}', 400),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Length": "104857600"}, b"{}", 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_body_that_is_none_is_refused_on_the_wire(raw, headers, body, status):
    given = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
    answered, text = raw("POST", "/datasets", headers=given, body=body)
    assert answered == status, text
    assert json.loads(text)["status"] == status


def test_a_body_without_a_length_is_counted_on_the_wire(http_client):
    answer = http_client.post("/datasets", content=chunked(3 * MIB), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_an_image_over_each_limit_has_a_reason_of_its_own(service, http_client, album):
    """Bytes, pixels, side, memory, work: found before anything is decoded, in a folder as in an upload."""
    folder = service.roots / "limits"
    folder.mkdir()
    (folder / "good.png").write_bytes(picture(4))
    Image.new("1", (8000, 6300)).save(folder / "pixels.png")
    Image.new("1", (30_001, 1)).save(folder / "side.png")
    Image.new("RGBA", (5400, 5400), (0, 128, 128, 100)).save(folder / "memory.webp", lossless=True, quality=0, method=0)
    Image.new("L", (90, 60)).save(folder / "work.jpg")
    jpeg = (folder / "work.jpg").read_bytes()
    (folder / "work.jpg").write_bytes(jpeg[:-2] + 100 * jpeg[jpeg.index(b"\xff\xda") : -2] + jpeg[-2:])
    bombs = {"pixels.png": "too_many_pixels", "side.png": "too_many_pixels", "memory.webp": "too_much_memory"}
    bombs["work.jpg"] = "too_much_work"
    with (folder / "bytes.png").open("wb") as file:
        file.truncate(64 * MIB + 1)
    dataset_id = register(http_client, folder)
    assert run(http_client, dataset_id)["skipped"] == 5
    skipped = http_client.get(f"/datasets/{dataset_id}/embeddings/skipped").json()["items"]
    reasons = {skip["file_name"]: skip["reason"] for skip in skipped}
    assert reasons == bombs | {"bytes.png": "too_large"}
    for name, reason in bombs.items():
        upload = {"file": (name, (folder / name).read_bytes())}
        answer = http_client.post(f"/datasets/{album}/search", files=upload)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_image")
        assert reason in answer.json()["detail"]
    upload = {"file": ("large.png", b"x" * (10 * MIB))}
    answer = http_client.post(f"/datasets/{album}/search", files=upload)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def connect(service):
    return socket.create_connection((service.settings.host, service.settings.port), timeout=240)


def request(service, method, path, version, *lines):
    """One request on a connection of its own; gives all that comes back until the service closes it."""
    head = [f"{method} {path} {version}", f"Host: {service.settings.host}", f"Authorization: Bearer {API_KEY}", *lines]
    with connect(service) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(("method", "status"), [("HEAD", b"200"), ("OPTIONS", b"405")])
def test_a_stream_is_not_begun_for_a_method_that_cannot_end_it(service, album, method, status):
    answer = request(service, method, f"/datasets/{album}/embeddings/progress", "HTTP/1.1", "Connection: close")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"data:" not in answer


def test_the_longest_filter_that_is_allowed_fits_into_a_url(service, album):
    where = quote("\U0010ffff" * MAX_CHARACTERS)
    answer = request(service, "GET", f"/datasets/{album}/duplicates?where={where}", "HTTP/1.1", "Connection: close")
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"invalid_filter" in answer


def test_an_old_client_gets_the_whole_stream_and_the_end_of_the_connection(service, album):
    answer = request(service, "GET", f"/datasets/{album}/embeddings/progress", "HTTP/1.0")
    assert b'"status": "complete"' in answer


def test_headers_for_the_proxys_operator_change_nothing(service, album):
    lines = ["x-request-disconnect-disabled: ?1", "x-request-timeout-seconds: 0.001", "Connection: close"]
    answer = request(service, "GET", f"/datasets/{album}/embeddings/progress", "HTTP/1.1", *lines)
    assert b'"status": "complete"' in answer


def test_a_body_that_stalls_is_given_up(service, monkeypatch):
    monkeypatch.setattr(guards, "BODY_IDLE_TIMEOUT_S", 0.2)
    lines = ["Content-Type: application/json", "Content-Length: 100", "Connection: close"]
    answer = request(service, "POST", "/datasets", "HTTP/1.1", *lines)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code": "request_timeout"' in answer


def test_two_hundred_slow_connections_do_not_keep_others_waiting(service, http_client):
    def quickest_s():
        return min(http_client.get("/healthz").elapsed.total_seconds() for _ in range(5))

    alone_s = quickest_s()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(service)).sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert quickest_s() < 20 * alone_s
