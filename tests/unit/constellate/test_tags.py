"""Columns, tags and filters of the client: what it sends, and what it makes of the answer."""

import json

import httpx

from constellate import Constellate


def client(answer):
    """A client, and the requests that it sent."""
    sent = []

    def respond(request):
        sent.append((request.method, request.url.raw_path.decode(), request.read()))
        return httpx.Response(200, json=answer)

    return Constellate("http://service", transport=httpx.MockTransport(respond)), sent


def test_a_filter_goes_with_every_page_of_samples():
    service, sent = client({"items": [{"id": "a"}], "next_cursor": None})
    assert list(service.samples("d", where="tag = 'é'")) == [{"id": "a"}]
    assert httpx.URL(sent[0][1]).params["where"] == "tag = 'é'"


def test_a_filter_goes_with_every_question_about_vectors(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"an image")
    service, sent = client({"items": [], "groups": []})
    service.similar("d", "a", limit=1, where="w > 1")
    service.search("d", image, limit=1, where="w > 1")
    service.duplicates("d", threshold=0.9, where="w > 1")
    service.outliers("d", k=1, limit=1, where="w > 1")
    service.diverse("d", n=1, where="w > 1")
    assert [httpx.URL(path).params["where"] for _, path, _ in sent] == ["w > 1"] * 5
    service.diverse("d", n=1)
    assert "where" not in httpx.URL(sent[-1][1]).params


def test_a_tag_is_put_on_and_taken_off_by_choice():
    service, sent = client({"changed": 2, "selected": 3})
    assert service.tag("d", "to do?", where="width > 5") == 2
    assert service.untag("d", "x", sample_ids=["a"]) == 2
    assert [(method, path, json.loads(body)) for method, path, body in sent] == [
        ("POST", "/datasets/d/tags/to%20do%3F", {"where": "width > 5"}),
        ("DELETE", "/datasets/d/tags/x", {"sample_ids": ["a"]}),
    ]


def test_tags_are_counted_by_name():
    service, _ = client([{"value": "keep", "count": 2}])
    assert service.tags("d") == {"keep": 2}


def test_columns_are_sent_as_the_bytes_of_the_file(tmp_path):
    file = tmp_path / "columns.csv"
    file.write_bytes(b"sample_id,w\na,1\n")
    service, sent = client({"matched": 1})
    assert service.put_columns("d", file) == {"matched": 1}
    assert sent == [("PUT", "/datasets/d/columns", b"sample_id,w\na,1\n")]
