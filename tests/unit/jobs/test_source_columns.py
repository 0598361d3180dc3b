"""The columns of a source, gathered from pages of a listing."""

import pyarrow as pa
import pytest

from serve_app.jobs import source_columns
from serve_app.jobs.source_columns import SourceColumns
from serve_app.records import SourceFile
from serve_app.sources.listing import Untyped


def gather(*pages):
    """The type and the values of each column, and the notices; a page is a list of values by column."""
    columns = SourceColumns()
    number = 0
    for page in pages:
        files = [SourceFile(str(number + at), f"{number + at}.png", values=values) for at, values in enumerate(page)]
        number += len(files)
        assert all(not file.values for file in columns.take(files))
    given = columns.gathered()
    if given is None:
        return {}, columns.notices()
    table = pa.ipc.open_stream(given.table).read_all()
    found = {name: (kind, table[f"c{at}"].to_pylist()) for at, (name, kind) in enumerate(given.types.items())}
    return found, columns.notices()


def of_texts(*texts):
    found, notices = gather([{"c": Untyped(text)} for text in texts])
    assert notices == []
    return found["c"]


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        (["1", " 2 ", "NA"], "number", [1, 2, None]),
        (["1", "2.5", "-1e3"], "number", [1, 2.5, -1000]),
        (["TRUE", "false", "null"], "boolean", [True, False, None]),
        (["007", "12"], "text", ["007", "12"]),
        (["-0.5", "0"], "number", [-0.5, 0]),
        (["9007199254740993", "1"], "text", ["9007199254740993", "1"]),
        (["99999999999999999999", "1"], "text", ["99999999999999999999", "1"]),
        (["inf", "1"], "text", ["inf", "1"]),
        (["NA", "x"], "text", ["NA", "x"]),
        (["NA", "nan"], "text", ["NA", "nan"]),
    ],
)
def test_texts_without_types_are_what_all_of_them_can_be(texts, kind, values):
    assert of_texts(*texts) == (kind, values)


@pytest.mark.parametrize(
    ("texts", "hours"),
    [(["2026-01-02", "2026-01-02 03:00"], 3), (["2026-01-02T00:00Z", "2026-01-02T05:00+02:00"], 3)],
)
def test_texts_that_are_times_become_times_in_utc(texts, hours):
    kind, (first, second) = of_texts(*texts)
    assert kind == "time"
    assert (second - first).total_seconds() == 3600 * hours


def test_a_column_that_only_some_pages_have_is_empty_elsewhere():
    found, notices = gather([{}, {}], [{"a": 1}, {}], [{"a": 2.5, "b": "x"}])
    assert found == {"a": ("number", [1, None, 2.5]), "b": ("text", [None, None, "x"])}
    assert notices == []


def test_files_that_disagree_about_a_type_give_texts_and_a_notice():
    found, notices = gather([{"a": 1, "b": True}], [{"a": "x", "b": None}])
    assert found == {"a": ("text", ["1", "x"]), "b": ("boolean", [True, None])}
    assert notices == ["the values of the column 'a' are of several types, so that all of them are texts"]


def test_a_source_with_more_columns_than_a_dataset_may_have_keeps_the_first_and_says_so():
    found, notices = gather([{f"c{number}": 1 for number in range(502)}])
    assert list(found) == [f"c{number}" for number in range(500)]
    assert notices == ["left out: the columns 'c500', 'c501', because a dataset has at most 500 columns"]


def test_columns_that_take_too_much_memory_are_left_out_from_the_last_on(monkeypatch):
    monkeypatch.setattr(source_columns, "MAX_BYTES", 2 * 2**20)
    page = [{"a": number, "b": "x" * 2000, "c": True} for number in range(1000)]
    found, notices = gather(page, page)
    assert list(found) == ["a"]
    assert notices == ["left out: the columns 'c', 'b'; all columns take more than 2 MiB"]


def test_values_that_cannot_be_stored_are_left_out_with_a_notice():
    values = [[1], {"a": 1}, b"x", float("inf"), "\ud800", 2**63]
    found, notices = gather([{"c": value} for value in values])
    assert found == {"c": ("text", [None, None, None, None, None, str(2**63)])}
    assert notices == [
        "left out: values of the column 'c' that are lists, objects or bytes",
        "left out: values of the column 'c' that are infinite",
        "left out: values of the column 'c' that are not valid Unicode",
    ]
