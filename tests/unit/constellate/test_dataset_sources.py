"""What a user of the command line means by a folder, a file or a URL."""

import pytest

from constellate.dataset_sources import absolute, is_of, is_there, name_of, root_of


@pytest.mark.parametrize(
    ("text", "source", "name", "root"),
    [
        ("photos", "{here}/photos", "photos", "{here}/photos"),
        ("photos/train.parquet", "{here}/photos/train.parquet", "train", "{here}/photos"),
        ("photos/shards.tar", "{here}/photos/shards.tar", "shards.tar", "{here}/photos/shards.tar"),
        ("s3://bucket/a/", "s3://bucket/a", "a", "s3://bucket/a"),
        ("s3://bucket/a/train.tar", "s3://bucket/a/train.tar", "train", "s3://bucket/a"),
        ("https://Example.org/m.csv", "https://example.org/m.csv", "m", "https://example.org"),
    ],
)
def test_a_source_has_one_spelling_a_name_and_a_root(tmp_path, monkeypatch, text, source, name, root):
    (tmp_path / "photos/shards.tar").mkdir(parents=True)
    (tmp_path / "photos/train.parquet").touch()
    monkeypatch.chdir(tmp_path)
    found = absolute(text)
    assert found == source.format(here=tmp_path.resolve())
    assert is_there(found)
    assert root_of(found) == root.format(here=tmp_path.resolve())
    assert name_of(found) == name


def test_what_is_not_there_or_no_such_file_is_no_source(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert not is_there(str(tmp_path / "none"))
    assert not is_there(str(tmp_path / "notes.txt"))
    assert not is_there(str(tmp_path / "none.tar"))


@pytest.mark.parametrize(
    ("format", "annotations", "source", "is_its"),
    [
        ("folder", None, "/a", True),
        ("folder", None, "/b", False),
        ("manifest", "/a/m.csv", "/a", True),
        ("manifest", "/a/m.csv", "/a/m.csv", True),
        ("webdataset", "/a/x.tar", "/a/x.tar", True),
        ("webdataset", "/a/x.tar", "/a", False),
        ("parquet", None, "/a", True),
    ],
)
def test_a_dataset_is_found_again_by_its_source(format, annotations, source, is_its):
    assert is_of({"root": "/a", "format": format, "annotations": annotations}, source) is is_its
