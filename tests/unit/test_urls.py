"""URLs: one spelling, and what lies below what."""

import pytest

from constellate.dataset_sources import absolute
from serve_app.config import Settings, SettingsError
from serve_app.errors import InvalidRequest, OutsideRoots
from serve_app.sources.roots import check_annotations, check_root
from serve_app.urls import is_url, parse, split_roots


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("s3://bucket", "s3://bucket"),
        ("S3://bucket/a/b/", "s3://bucket/a/b"),
        ("hf://datasets/org/name@main/data", "hf://datasets/org/name@main/data"),
        ("https://Example.ORG:443/a%20b/", "https://example.org/a%20b"),
        ("http://example.org:8080/é", "http://example.org:8080/%C3%A9"),
        ("https://[2001:db8::1]:443/x", "https://[2001:db8::1]/x"),
        ("https://", "https://"),
    ],
)
def test_a_url_has_one_spelling(text, spelled):
    assert str(parse(text)) == spelled
    assert parse(spelled) == parse(text)
    assert absolute(text) == spelled, "the client finds a dataset again by this spelling"


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "s3://bucket/../other",
        "s3://bucket/a//b",
        "s3://key@bucket/a",
        "s3://bucket/a?versionId=1",
        "s3://bucket/a#b",
        "https://host/a/%2e%2e/b",
        "https://host/a/..",
        "https://host/a%2fb",
        "https://host/a%5cb",
        "https://host\\@other/a",
        "https://user:secret@host/a",
        "https://host/a#b",
        "https://host/a?b=c",
        "https://host:99999/a",
        "https://[::1/a",
        "https://host/a b",
        "https://host/\n",
        "s3://bucket/\ud800",
        "s3://" + "x" * 5000,
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_two_readers_could_read_differently_is_no_url(text):
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert "secret" not in caught.value.detail


def test_images_of_the_web_may_be_signed():
    url = parse("https://host/a.jpg?X-Signature=1%2F2", with_query=True)
    assert str(url) == "https://host/a.jpg?X-Signature=1%2F2"


@pytest.mark.parametrize(
    ("url", "root", "is_below"),
    [
        ("s3://bucket/a", "s3://bucket", True),
        ("s3://bucket/a", "s3://bucket/a", True),
        ("s3://bucket/a", "s3://", True),
        ("s3://bucket/ab", "s3://bucket/a", False),
        ("s3://bucket-2/a", "s3://bucket", False),
        ("gs://bucket/a", "s3://bucket", False),
        ("https://host/a", "https://", True),
        ("https://host.evil.org/a", "https://host", False),
        ("https://host:8443/a", "https://host", False),
        ("http://host/a", "https://host", False),
    ],
)
def test_below_is_a_comparison_of_parts(url, root, is_below):
    assert parse(url).is_below(parse(root)) is is_below


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("/a:/b", ["/a", "/b"]),
        ("s3://bucket/a:/b", ["s3://bucket/a", "/b"]),
        ("/a:https://host:8443/x:gs://b", ["/a", "https://host:8443/x", "gs://b"]),
        ("https://:http://[::1]:80/x:rel", ["https://", "http://[::1]:80/x", "rel"]),
        ("hf://datasets/org/name:s3://b", ["hf://datasets/org/name", "s3://b"]),
        (":/a::", ["/a"]),
    ],
)
def test_roots_are_separated_by_colons_that_no_url_needs(text, entries):
    assert split_roots(text) == entries


def test_roots_survive_the_environment(tmp_path):
    settings = Settings.from_environment({"CONSTELLATE_DATASET_ROOTS": f"{tmp_path}:s3://bucket/a:https://host:8443"})
    assert settings.dataset_roots == (tmp_path.resolve(), "s3://bucket/a", "https://host:8443")
    assert Settings.from_environment(settings.to_environment()) == settings
    with pytest.raises(SettingsError, match="URLs begin with"):
        Settings.from_environment({"CONSTELLATE_DATASET_ROOTS": "ftp://host"})


def test_a_url_below_no_root_has_the_answer_of_a_folder_below_none(tmp_path):
    roots = (tmp_path.resolve(), "s3://bucket/a", "https://host/x")
    assert str(check_root("s3://bucket/a/b/", roots)) == "s3://bucket/a/b"
    assert str(check_annotations("m.csv", parse("https://host/x"), roots)) == "https://host/x/m.csv"
    answers = set()
    for path in ("s3://bucket", "s3://other/a", "https://host/y", "http://127.0.0.1/x", str(tmp_path / "../missing")):
        with pytest.raises(OutsideRoots) as caught:
            check_root(path, roots)
        answers.add(caught.value.detail)
    assert len(answers) == 1


def test_without_a_folder_among_the_roots_no_path_is_allowed():
    with pytest.raises(OutsideRoots):
        check_root(".", ("s3://bucket",))
    with pytest.raises(InvalidRequest, match="names no bucket"):
        check_root("s3://", ("s3://",))


@pytest.mark.parametrize(("text", "known"), [(" s3://x", True), ("https://x", True), ("s3:/x", False), ("/a", False)])
def test_a_text_with_a_scheme_is_a_url(text, known):
    assert is_url(text) is known


def test_a_query_beyond_ascii_is_one_that_http_can_carry():
    assert str(parse("https://h/hook?who=é&sign=%2F+a", with_query=True)) == "https://h/hook?who=%C3%A9&sign=%2F+a"
