"""Questions under a filter: the answer is that of a set which has the chosen samples only."""

import json
import os
import zlib

import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import InvalidFilter, SampleNotFound, Unavailable
from serve_app.search import cover, curation
from serve_app.search.neighbours import Neighbours
from serve_app.search.set_file import ABOUT, ROWS, SetFile
from serve_app.search.set_files import SetFiles
from serve_app.search.similarity import normalised, top_k
from serve_app.store.vectors import Vectors
from tests.unit.store.workbench import CARD, content_of, source_files, vector_of

FILES = source_files(40)
NEW = FILES[5]
FILTERS = {
    "some": "file_name LIKE '%1%'",
    "one": f"sample_id = '{FILES[7].sample_id}'",
    "none": "label = 'nowhere'",
    "all": "label IS NULL OR label IS NOT NULL",
}


def fill(bench):
    files = [file for file in FILES if file is not NEW]
    dataset = bench.register(files)
    bench.embed(dataset, files, contents={FILES[1].sample_id: FILES[0].sample_id})
    bench.datasets.rescan(bench.scan(FILES), dataset.id)


@pytest.fixture
def dataset(bench):
    """Forty images, of which the first two are copies; the sixth came later and has no vector."""
    bench.database.path.write_bytes(content_of(fill))
    return bench.datasets.by_name("flowers")


@pytest.fixture
def neighbours(store, tmp_path):
    return Neighbours(store, tmp_path / "sets")


@pytest.fixture(params=FILTERS.values(), ids=FILTERS)
def where(request):
    return request.param


@pytest.fixture
async def chosen(neighbours, dataset, where):
    """The ids that a filter chooses among those with a vector, told by looking at each name; and their matrix."""
    whole = await neighbours._sets.current(dataset.id)
    is_chosen = {
        FILTERS["some"]: lambda name: "1" in name,
        FILTERS["one"]: lambda name: name == FILES[7].sample_id,
        FILTERS["none"]: lambda name: False,
        FILTERS["all"]: lambda name: True,
    }[where]
    names = [file.sample_id for file in FILES if file is not NEW and is_chosen(file.sample_id)]
    rows = [whole.row_of(name) for name in names]
    return names, np.ascontiguousarray(whole.matrix[rows])


async def test_similar_samples_are_those_of_the_choice_without_the_sample_itself(neighbours, dataset, where, chosen):
    names, matrix = chosen
    for asked in (FILES[7], FILES[2]):
        others = [place for place, name in enumerate(names) if name != asked.sample_id]
        rows, scores = top_k(matrix[others], vector_of(asked.sample_id), 5)
        found = await neighbours.similar(dataset.id, asked.sample_id, 5, where)
        assert [(item.sample_id, item.score) for item in found] == [
            (names[others[row]], pytest.approx(score, abs=1e-6)) for row, score in zip(rows, scores, strict=True)
        ]


async def test_a_search_finds_the_best_of_the_choice(neighbours, dataset, where, chosen):
    names, matrix = chosen
    query = np.random.default_rng(3).normal(size=matrix.shape[1]).astype(np.float32)
    scores = matrix @ normalised(query[None])[0]
    best = np.argsort(-scores, kind="stable")[:5]
    found = await neighbours.search(dataset.id, query, CARD.space_key, 5, where)
    assert [(item.sample_id, item.score) for item in found] == [
        (names[row], pytest.approx(scores[row], abs=1e-6)) for row in best
    ]


@pytest.mark.parametrize("threshold", [0.05, 0.999])
async def test_duplicates_are_linked_by_chosen_samples_only(neighbours, dataset, where, chosen, threshold):
    names, matrix = chosen
    expected = curation.near_duplicates(matrix, threshold)
    found = (await neighbours.duplicates(dataset.id, threshold, where)).groups
    assert [[(item.sample_id, item.score) for item in group] for group in found] == [
        [(names[row], pytest.approx(score, abs=1e-6)) for row, score in group] for group in expected
    ]


async def test_copies_by_content_are_duplicates_within_the_choice_only(neighbours, dataset):
    first, second = (f"sample_id = '{file.sample_id}'" for file in FILES[:2])
    assert len((await neighbours.duplicates(dataset.id, 1.0, f"{first} OR {second}")).groups) == 1
    assert (await neighbours.duplicates(dataset.id, 1.0, first)).groups == []


async def test_outliers_are_compared_with_chosen_samples_only(neighbours, dataset, where, chosen):
    names, matrix = chosen
    scores = curation.outlier_scores(matrix, 3)
    order = np.argsort(scores, kind="stable")[:4]
    found = await neighbours.outliers(dataset.id, 3, 4, where)
    assert [(item.sample_id, item.score) for item in found] == [
        (names[row], pytest.approx(scores[row], abs=1e-6)) for row in order
    ]


async def test_a_diverse_choice_covers_the_chosen_samples(neighbours, dataset, where, chosen):
    names, matrix = chosen
    found = await neighbours.diverse(dataset.id, 6, where)
    assert [item.sample_id for item in found] == [names[row] for row in cover.diverse(matrix, 6)[0]]


async def test_a_filter_that_chooses_all_gives_the_answer_without_one(neighbours, dataset):
    for ask, args in ((neighbours.duplicates, (0.1,)), (neighbours.outliers, (3, 9)), (neighbours.diverse, (9,))):
        assert await ask(dataset.id, *args, FILTERS["all"]) == await ask(dataset.id, *args)


async def test_the_copy_of_the_chosen_rows_is_a_file_that_is_gone_when_the_answer_is_there(
    neighbours, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr("serve_app.search.part.COPIED_ROWS", 3)
    part = await neighbours._sets.part(dataset.id, FILTERS["some"])
    steps = []
    matrix = part.matrix(lambda *step: steps.append(step))
    assert isinstance(matrix.base, np.memmap)
    assert steps == [(done, len(matrix)) for done in (*range(3, len(matrix), 3), len(matrix))]
    assert np.array_equal(matrix, part.of.matrix[part.rows])
    assert not [path for path in (tmp_path / "sets").iterdir() if path.is_file()]


async def test_without_a_filter_nothing_is_copied(neighbours, dataset):
    part = await neighbours._sets.part(dataset.id, None)
    assert part.matrix(lambda *_: None) is part.of.matrix


async def test_a_disk_that_is_too_full_for_the_copy_is_said(neighbours, dataset, monkeypatch):
    await neighbours.diverse(dataset.id, 1)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("serve_app.search.part.allocate", full)
    with pytest.raises(Unavailable, match="No space left"):
        await neighbours.diverse(dataset.id, 1, FILTERS["some"])


async def test_a_sample_without_a_vector_is_not_found_and_not_chosen(neighbours, dataset):
    with pytest.raises(SampleNotFound):
        await neighbours.similar(dataset.id, NEW.sample_id, 3, FILTERS["all"])
    assert await neighbours.diverse(dataset.id, 3, f"sample_id = '{NEW.sample_id}'") == []


@pytest.mark.parametrize("ask", [Neighbours.duplicates, Neighbours.diverse])
async def test_a_mistake_in_a_filter_is_said(neighbours, dataset, ask):
    with pytest.raises(InvalidFilter, match="labl"):
        await ask(neighbours, dataset.id, 1, "labl = 'x'")


class RescanningWriter:
    """A store whose dataset is rescanned between the question for the set and the one for the filter, once."""

    def __init__(self, store, rescan):
        self._store = store
        self._rescan = rescan

    async def ask(self, method, *args, **kwargs):
        if method is Vectors.matching and self._rescan is not None:
            rescan, self._rescan = self._rescan, None
            rescan()
        return await self._store.ask(method, *args, **kwargs)


async def test_samples_that_moved_between_the_two_questions_are_not_mistaken_for_others(
    store, bench, dataset, tmp_path
):
    writer = RescanningWriter(store, lambda: bench.datasets.rescan(bench.scan(FILES[3:]), dataset.id))
    part = await SetFiles(tmp_path / "sets", writer).part(dataset.id, FILTERS["one"])
    assert part.of.rows.column("sample_id").take(part.rows).to_pylist() == [FILES[7].sample_id]


async def test_the_writer_answers_one_bit_a_sample(bench, dataset):
    version = bench.vectors.current(dataset.id).version
    bits = bench.vectors.matching(dataset.id, version=version, where=f"sample_id = '{FILES[9].sample_id}'")
    assert bits == bytes([0, 0b0100_0000, 0, 0, 0])


async def test_a_set_file_of_an_older_release_is_not_used(neighbours, dataset, tmp_path):
    """It does not say which sample a row is of, which filters need."""
    await neighbours.diverse(dataset.id, 1)
    [folder] = (tmp_path / "sets").glob("*/*")
    rows = pa.ipc.open_file(folder / ROWS).read_all().drop_columns(["ordinal"])
    (folder / ROWS).unlink()
    with pa.OSFile(str(folder / ROWS), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    about = json.loads((folder / ABOUT).read_text())
    about["checksums"][ROWS] = zlib.crc32((folder / ROWS).read_bytes())
    (folder / ABOUT).write_text(json.dumps(about))
    assert SetFile.open(folder) is None
    assert len(await neighbours.diverse(dataset.id, 2, FILTERS["some"])) == 2
