"""Columns and tags on the command line, on a service whose dataset is listed but not embedded."""

import json

import pytest

from constellate import Constellate


@pytest.fixture
def flowers(service, flowers):
    """The folder, registered as `flowers`."""
    with Constellate(service.settings.url) as client:
        client.register("flowers", flowers)
    return flowers


def rows(shown):
    assert shown.exit_code == 0, shown.stderr
    return [line.split("\t") for line in shown.stdout.splitlines()]


def test_columns_of_a_file_are_added_listed_and_filtered_by(run, flowers, tmp_path):
    (tmp_path / "sizes.csv").write_text("file_name,width\nrose/a.png,640\ntulip/c.png,80\nnowhere.png,1\n")
    put = run("columns", "flowers", "sizes.csv")
    assert put.stdout.splitlines() == ["Put width on 2 images of 3 rows.", "       1  unknown_sample: nowhere.png"]
    header, *listed = rows(run("columns", "flowers"))
    assert header == ["column", "type", "images", "distinct", "values"]
    by_name = {row[0]: row[1:] for row in listed}
    assert by_name["width"] == ["number", "2", "2", "80.0 to 640.0"]
    assert by_name["label"] == ["text", "5", "2", "tulip, rose"]
    assert {column["name"] for column in json.loads(run("columns", "flowers", "--json").stdout)} == {*by_name}
    assert run("tag", "flowers", "wide", "--where", "width > 100").stdout == "Put 'wide' on 1 image.\n"


def test_tags_are_put_on_counted_and_taken_off(run, flowers):
    assert run("tag", "flowers", "keep", "--where", "label = 'tulip'").stdout == "Put 'keep' on 3 images.\n"
    assert run("tag", flowers, "check", "--where", "file_name = 'rose/a.png'").exit_code == 0
    assert rows(run("tags", "flowers")) == [["tag", "images"], ["check", "1"], ["keep", "3"]]
    shown = run("untag", "flowers", "keep", "--where", "file_name LIKE '%broken%'")
    assert shown.stdout == "Took 'keep' off 1 image.\n"
    assert json.loads(run("tags", "flowers", "--json").stdout) == {"keep": 2, "check": 1}
    assert run("untag", "flowers", "keep").stdout == "Took 'keep' off 2 images.\n"
    assert rows(run("tags", "flowers")) == [["tag", "images"], ["check", "1"]]


def test_a_tag_without_a_choice_and_a_file_that_is_not_there_are_wrong_usage(run, flowers):
    for arguments, message in ((["tag", "flowers", "keep"], "--where"), (["columns", "flowers", "no.csv"], "no.csv")):
        shown = run(*arguments)
        assert shown.exit_code == 2
        assert message in shown.stderr


def test_a_file_without_a_key_is_refused_with_the_reason(run, flowers, tmp_path):
    (tmp_path / "sizes.csv").write_text("name,width\na,1\n")
    shown = run("columns", "flowers", "sizes.csv")
    assert shown.exit_code != 0
    assert "file_name" in shown.stderr
