"""Questions asked by name, over a real store."""

import pytest

from serve_app.errors import InvalidRequest, SampleNotFound
from serve_app.search.neighbours import Neighbours
from serve_app.search.searcher import QUESTIONS, LocalSearcher
from tests.unit.search.conftest import FILES

FIRST, COPY, OTHER = (file.sample_id for file in FILES)


@pytest.fixture
def searcher(store, tmp_path):
    return LocalSearcher(store, tmp_path / "sets")


async def test_a_question_is_asked_by_its_method(searcher, dataset):
    found = await searcher.ask(Neighbours.similar, dataset.id, FIRST, limit=2)
    assert [neighbour.sample_id for neighbour in found] == [COPY, OTHER]
    with pytest.raises(SampleNotFound):
        await searcher.ask(Neighbours.similar, dataset.id, "nope", 2)


async def test_a_question_is_asked_by_its_name(searcher, dataset):
    [group] = (await searcher.ask_named("Neighbours.duplicates", [dataset.id], {"threshold": 0.99})).groups
    assert {neighbour.sample_id for neighbour in group} == {FIRST, COPY}


def test_only_the_public_methods_can_be_asked():
    names = ("similar", "search", "best_of", "duplicates", "prepare", "forget", "outliers", "diverse")
    findings = ("kept_twins", "leaks", "mislabeled", "clusters")
    assert set(QUESTIONS) == {f"Neighbours.{name}" for name in names} | {f"Findings.{name}" for name in findings}


@pytest.mark.parametrize(
    "name",
    ["Neighbours._long", "Neighbours.__init__", "Neighbours.nope", "Neighbours", "similar", "Vectors.read", ""],
)
async def test_what_is_no_question_is_refused(searcher, name):
    with pytest.raises(InvalidRequest, match="no question"):
        await searcher.ask_named(name, ("x",), {})


async def test_a_method_of_another_class_is_no_question(searcher):
    class Stranger:
        async def similar(self, dataset_id: str) -> None: ...

    with pytest.raises(InvalidRequest, match="no question"):
        await searcher.ask(Stranger.similar, "x")
