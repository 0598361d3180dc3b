"""Columns and tags on the command line, on a service whose dataset is listed but not embedded."""

import json

import pytest

from constellate import Constellate
from tests.fakes import FakeModel


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


@pytest.fixture
def reading(service, flowers, settings):
    """`flowers` with vectors of a model that takes text; returns the texts that it has read."""
    service.embedder.model = FakeModel(name=settings.model, no_text="")
    read, embed_texts = [], service.embedder.embed_texts

    async def noted(model, texts):
        read.extend(texts)
        return await embed_texts(model, texts)

    service.embedder.embed_texts = noted
    with Constellate(service.settings.url) as client:
        client.embed_folder(flowers, name="flowers")
    return read


def test_words_become_labels_in_a_column_that_filters_see(run, reading):
    shown = rows(run("labels", "flowers", "a rose", "a tulip"))
    assert shown[0] == ["zero_shot", "images"]
    assert [row[0] for row in shown[1:]] == ["a rose", "a tulip"]
    assert sum(int(row[1]) for row in shown[1:]) == 4
    assert reading == ["a photo of a rose.", "a photo of a tulip."]
    for phrase, count in shown[1:]:
        chosen = run("tag", "flowers", "best", "--where", f"zero_shot = '{phrase}'")
        assert chosen.stdout == f"Put 'best' on {count} image{'' if count == '1' else 's'}.\n"
    tagged = run("tag", "flowers", "fits", "--where", "zero_shot IN ('a rose', 'a tulip') AND zero_shot_score < 1")
    assert tagged.stdout == "Put 'fits' on 4 images.\n"


def test_labels_take_prompts_a_column_and_a_filter(run, reading):
    options = ("--column", "flower", "--where", "label = 'rose'", "--json")
    shown = run("labels", "flowers", "rose", "tulip", "--prompt", "one {}", "--prompt", "a {}!", *options)
    assert sum(json.loads(shown.stdout).values()) == 2
    assert reading == ["one rose", "a rose!", "one tulip", "a tulip!"]
    names = {column["name"] for column in json.loads(run("columns", "flowers", "--json").stdout)}
    assert {"flower", "flower_score"} <= names


def test_words_that_were_cut_are_told_beside_the_answer(run, reading):
    shown = run("labels", "flowers", "a rose", "a tulip in the rain", "--prompt", "{}", "--prompt", "a {}")
    assert shown.stderr == "'a tulip in the rain' is longer than the model takes, and was cut\n"
    found = run("search", "flowers", "a tulip in the rain at night")
    assert "longer than the model takes" in found.stderr
    assert len(rows(found)) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["a rose"], 2, "phrases"), (["a rose", "a tulip", "--prompt", "no place"], 2, "templates"), ([], 2, "PHRASE")],
    ids=["one phrase", "a prompt without a place", "no phrase"],
)
def test_labels_that_make_no_sense_are_wrong_usage(run, reading, arguments, code, says):
    shown = run("labels", "flowers", *arguments)
    assert shown.exit_code == code
    assert says in shown.stderr


def test_labels_of_a_model_without_a_text_tower_say_why(run, service, flowers):
    with Constellate(service.settings.url) as client:
        client.embed_folder(flowers, name="flowers")
    shown = run("labels", "flowers", "a rose", "a tulip")
    assert shown.exit_code == 1
    assert "images only" in shown.stderr


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
