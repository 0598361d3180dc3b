"""Commands that only ask, all to one service whose dataset is embedded."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from constellate import Constellate
from tests.live_service import LiveService
from tests.unit.cli.conftest import command_line, make_flowers, settings_below
from tests.unit.store.workbench import lay_blank


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """A service with the dataset `flowers`, in which one image is there twice."""
    folder = tmp_path_factory.mktemp("gallery")
    flowers = make_flowers(folder / "images" / "flowers")
    (flowers / "rose" / "copy.png").write_bytes((flowers / "rose" / "a.png").read_bytes())
    service = LiveService(settings_below(folder))
    lay_blank(service.settings.database_path)
    service.start()
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert command_line(service.settings, folder, monkeypatch)("embed", flowers).exit_code == 0
    yield SimpleNamespace(settings=service.settings, flowers=flowers)
    service.stop()


@pytest.fixture
def run(gallery, tmp_path, monkeypatch):
    return command_line(gallery.settings, tmp_path, monkeypatch)


@pytest.fixture
def flowers(gallery):
    return gallery.flowers


def test_status_shows_datasets_as_a_table_or_as_json(run, gallery, flowers):
    shown = run("status").stdout.splitlines()
    assert shown[0] == f"{gallery.settings.url}: ready"
    assert shown[-1].split("\t") == ["flowers", "6", "5", "dinov2-base", "yes", str(flowers)]
    found = json.loads(run("status", "--json").stdout)
    assert (found["ready"], found["reason"], found["datasets"][0]["embedding_count"]) == (True, None, 5)


def test_jobs_are_listed_the_newest_first(run):
    header, *rows = (line.split("\t") for line in run("jobs").stdout.splitlines())
    assert [dict(zip(header, row, strict=True))["kind"] for row in rows] == ["reduce", "embed", "register"]
    assert {row[header.index("dataset")] for row in rows} == {"flowers"}
    assert len(json.loads(run("jobs", "--json", "--limit", 1).stdout)) == 1


def test_search_finds_the_image_itself_first(run, gallery, flowers):
    found = json.loads(run("search", "flowers", flowers / "tulip" / "c.png", "--limit", 2, "--json").stdout)
    assert found[0]["file_name"] == "tulip/c.png"
    assert len(found) == 2
    table = run("search", flowers, flowers / "tulip" / "c.png").stdout.splitlines()
    assert table[0].split("\t") == ["score", "label", "file"]
    assert table[1].split("\t") == ["1.0000", "tulip", "tulip/c.png"]


def test_words_of_a_search_go_to_the_service_which_says_why_not(run, gallery):
    """The gallery's model takes no text."""
    for words in ("a red chair", "cats and/or dogs", "at 5 p.m. in the park"):
        shown = run("search", "flowers", words)
        assert shown.exit_code != 0
        assert "images only" in shown.stderr


@pytest.mark.parametrize(
    ("arguments", "n_rows"),
    [(["outliers", "flowers", "-k", 2, "--limit", 3], 3), (["diverse", "flowers", "-n", 2], 2)],
    ids=["outliers", "diverse"],
)
def test_surveys_print_a_table_and_json(run, arguments, n_rows):
    assert len(run(*arguments).stdout.splitlines()) == 1 + n_rows
    assert len(json.loads(run(*arguments, "--json").stdout)) == n_rows


def test_duplicates_are_printed_group_by_group(run, flowers):
    rows = [line.split("\t") for line in run("duplicates", "flowers").stdout.splitlines()]
    assert rows == [["group", "score", "file"], ["1", "1.0000", "rose/a.png"], ["1", "1.0000", "rose/copy.png"]]
    assert len(json.loads(run("duplicates", "flowers", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["outliers", "flowers"], {"tulip/c.png", "tulip/d e+é.png"}),
        (["diverse", "flowers"], {"tulip/c.png", "tulip/d e+é.png"}),
        (["search", "flowers", "{flowers}/rose/a.png"], {"tulip/c.png", "tulip/d e+é.png"}),
    ],
    ids=["outliers", "diverse", "search"],
)
def test_a_filter_leaves_only_what_it_chooses(run, flowers, arguments, found):
    arguments = [str(argument).format(flowers=flowers) for argument in arguments]
    shown = json.loads(run(*arguments, "--where", "label = 'tulip'", "--json").stdout)
    assert {item["file_name"] for item in shown} == found


def test_a_filter_restricts_duplicates_and_exports(run, tmp_path):
    assert json.loads(run("duplicates", "flowers", "--where", "label = 'tulip'", "--json").stdout) == []
    assert run("export", "flowers", "--out", "some.parquet", "--where", "label = 'tulip'").exit_code == 0
    assert pq.read_table(tmp_path / "some.parquet").column("label").to_pylist() == ["tulip", "tulip"]


@pytest.mark.parametrize(
    ("options", "name", "begins"),
    [
        (["--out", "x.csv"], "x.csv", '"sample_id","file_name","label"'),
        (["--out", "x.csv", "--vectors"], "x.csv", '"sample_id","file_name","label","model_name","vector"'),
        (["--format", "coco"], "flowers.json", '{"info": {"description": "flowers"}, "images": ['),
        (["--out", "x.txt"], "x.txt", "tulip/c.png"),
        (["--format", "yolo", "--out", "x.txt"], "x.txt", "/"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_export_hands_the_chosen_images_to_other_tools(run, tmp_path, options, name, begins):
    shown = run("export", "flowers", *options, "--where", "file_name = 'tulip/c.png'")
    assert (shown.exit_code, shown.stdout) == (0, f"{tmp_path / name}\n")
    assert (tmp_path / name).read_text().startswith(begins)


def test_an_archive_of_boxes_is_refused_where_there_are_none(run, tmp_path):
    shown = run("export", "flowers", "--out", "x.zip")
    assert (shown.exit_code, "its labels are of whole images" in shown.stderr) == (2, True)
    assert not (tmp_path / "x.zip").exists()


def test_a_mistake_in_a_filter_is_said(run):
    shown = run("diverse", "flowers", "--where", "labl = 'tulip'")
    assert shown.exit_code == 2
    assert "did you mean 'label'?" in shown.stderr


def test_a_dataset_that_is_not_there_is_wrong_usage_and_the_others_are_named(run):
    shown = run("export", "flours")
    assert shown.exit_code == 2
    assert "'flowers'" in shown.stderr


@pytest.mark.parametrize(
    ("options", "name"),
    [([], "flowers.parquet"), (["--format", "arrow"], "flowers.arrow"), (["--out", "x.arrow"], "x.arrow")],
    ids=["default", "by format", "by name"],
)
def test_export_writes_the_file_and_prints_where(run, tmp_path, options, name):
    assert run("export", "flowers", *options).stdout == f"{tmp_path / name}\n"
    head = (tmp_path / name).read_bytes()[:4]
    assert (head == b"PAR1") == name.endswith("parquet")


def test_duplicates_say_what_to_keep_and_why(run):
    rows = [line.split("\t") for line in run("duplicates", "flowers", "--keep", "first").stdout.splitlines()]
    assert rows[0] == ["group", "score", "file", "action", "reason"]
    assert [row[2:] for row in rows[1:]] == [
        ["rose/a.png", "keep", "the first by name of 2"],
        ["rose/copy.png", "drop", "1.000 like rose/a.png, which comes first by name"],
    ]


@pytest.mark.parametrize(
    ("arguments", "header"),
    [
        (["leaks", "--column", "file_name"], ["exact", "score", "file_name", "file", "file_name", "twin"]),
        (["mislabeled"], ["score", "label", "suggested", "file"]),
        (["clusters"], ["cluster", "images", "label", "share", "medoid"]),
        (["clusters", "--column", "group"], ["cluster", "images", "label", "share", "medoid"]),
    ],
    ids=["leaks", "mislabeled", "clusters", "column"],
)
def test_findings_print_a_table_and_json(run, arguments, header):
    command, *options = arguments
    shown = run(command, "flowers", *options)
    assert (shown.exit_code, shown.stdout.splitlines()[0].split("\t")) == (0, header)
    found = json.loads(run(command, "flowers", *options, "--json").stdout)
    assert len(shown.stdout.splitlines()) == 1 + len(found)


@pytest.mark.parametrize("command", ["duplicates", "leaks"])
def test_a_threshold_of_zero_is_wrong_usage(run, command):
    refused = run(command, "flowers", "--threshold", 0)
    assert (refused.exit_code, "0 is not greater than 0" in refused.stderr) == (2, True)


def test_what_a_list_leaves_out_is_said_aside(run, monkeypatch):
    answers = {"leaks": {"items": []}, "duplicates": {"groups": []}, "clusters": {"items": [], "noise": 3}}

    def finding(self, dataset_id, name, *args, **kwargs):
        return {"incomplete": 2, **answers[name]}

    monkeypatch.setattr(Constellate, "_finding", finding)
    for command in (["leaks"], ["duplicates"], ["duplicates", "--keep", "first"]):
        shown = run(*command[:1], "flowers", *command[1:], "--json")
        assert (json.loads(shown.stdout), "2 images may have more twins" in shown.stderr) == ([], True)
    assert run("clusters", "flowers").stderr == "3 images in no cluster\n"


@pytest.mark.parametrize("command", ["duplicates", "leaks", "mislabeled", "clusters", "outliers", "diverse"])
def test_a_finding_is_saved_as_a_plan(run, tmp_path, command):
    for name in ("plan.csv", "plan.parquet"):
        assert run(command, "flowers", "--out", name).stdout == f"{tmp_path / name}\n"
    text = (tmp_path / "plan.csv").read_text().splitlines()
    assert [word.strip('"') for word in text[0].split(",")] == pq.read_schema(tmp_path / "plan.parquet").names
    refused = run(command, "flowers", "--out", "plan.xlsx")
    assert (refused.exit_code, "neither .csv nor .parquet" in refused.stderr) == (2, True)
    assert not (tmp_path / "plan.xlsx").exists()
