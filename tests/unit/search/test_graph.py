"""The neighbour graph of a set: made block by block, kept in files, and asked in place of all pairs."""

import numpy as np
import pytest

from serve_app.errors import Conflict, GraphNeeded, InvalidRequest
from serve_app.search import graph
from serve_app.search.curation import near_duplicates, outlier_scores
from serve_app.search.graph import make_graph
from serve_app.search.graph_curation import linked_groups, mean_similarities
from serve_app.search.graph_file import DONE, NEIGHBOURS, GraphDraft, graphs_in, largest_graph
from serve_app.search.neighbours import Neighbours
from serve_app.search.pairs import nearest
from serve_app.search.set_file import SetFile
from serve_app.search.set_files import SetFiles
from serve_app.search.similarity import normalised
from tests.unit.search.conftest import FILES


@pytest.fixture
def matrix():
    """600 vectors in 30 clusters, 20 of them pairs that are nearly the same."""
    random = np.random.default_rng(0)
    vectors = np.repeat(random.standard_normal((30, 16)), 20, axis=0) + 0.5 * random.standard_normal((600, 16))
    vectors[1:40:2] = vectors[:40:2] + 1e-4
    return normalised(vectors)


@pytest.fixture
def made(tmp_path, monkeypatch, matrix):
    """A function that makes the graph of the matrix; it returns it and the numbers of rows that were reported."""
    monkeypatch.setattr(graph, "BLOCK_ROWS", 128)
    monkeypatch.setattr(SetFile, "open", lambda folder: SetFile(folder, "v", "job", "space", matrix, None))

    def make(k, **options):
        reported = []
        return make_graph(tmp_path, k, lambda done, total: reported.append(done), **options), reported

    return make


def recall(found, truth):
    """The share of the true neighbours that were found."""
    return np.mean([len(np.intersect1d(*rows)) / len(rows[1]) for rows in zip(found, truth, strict=True)])


def test_a_small_sets_graph_is_exact_and_counts_its_rows(made, matrix):
    found, reported = made(7)
    rows, scores = nearest(matrix, 7)
    assert np.array_equal(found.neighbours, rows)
    assert np.allclose(found.similarities, scores)
    assert reported == [0, 128, 256, 384, 512, 600]


def test_the_index_finds_nearly_all_neighbours_with_their_exact_similarities(made, matrix):
    found, _ = made(7, max_exact_rows=0)
    assert recall(found.neighbours, nearest(matrix, 7)[0]) > 0.95
    own = np.arange(600)[:, None]
    assert np.allclose(found.similarities, (matrix[own] * matrix[found.neighbours]).sum(axis=2), atol=1e-5)
    assert not (found.neighbours == own).any()
    assert (np.diff(found.similarities, axis=1) <= 0).all()


def test_a_graph_goes_on_after_the_rows_that_a_killed_process_has_done(made, tmp_path, matrix):
    rows, scores = nearest(matrix, 7)
    with GraphDraft(tmp_path, (600, 7)) as draft:
        assert draft.start() == 0
        draft.put(0, rows[:512], scores[:512])
    assert largest_graph(tmp_path) is None
    found, reported = made(7)
    assert reported == [512, 600]
    assert np.array_equal(found.neighbours, rows)
    assert not (found.folder / DONE).exists()


def test_a_graph_that_is_large_enough_is_kept_and_a_larger_one_takes_its_place(made, tmp_path):
    first, _ = made(7)
    second, reported = made(5)
    assert (second.folder, reported) == (first.folder, [600])
    assert made(9)[0].k == 9
    assert [folder.name for folder in graphs_in(tmp_path)] == ["graph-9"]


def test_a_damaged_graph_is_made_again(made, tmp_path):
    folder = made(7)[0].folder
    with (folder / NEIGHBOURS).open("r+b") as file:
        file.write(b"\xff\xff")
    assert largest_graph(tmp_path) is None
    assert made(7)[0].k == 7


def test_a_graph_has_fewer_neighbours_where_the_set_is_smaller(made, matrix, monkeypatch):
    monkeypatch.setattr(SetFile, "open", lambda folder: SetFile(folder, "v", "job", "space", matrix[:1], None))
    assert made(15)[0].k == 0


def test_a_graph_of_a_set_that_is_gone_is_a_conflict(tmp_path):
    with pytest.raises(Conflict):
        make_graph(tmp_path / "gone", 15, lambda done, total: None)


@pytest.mark.parametrize("step", [1, 2])
def test_a_graph_answers_as_all_pairs_do(made, matrix, step):
    """In a part too, as far as the part's neighbours are among the graph's."""
    found = made(40)[0]
    rows = None if step == 1 else np.arange(0, 600, step)
    part = matrix if rows is None else matrix[rows]
    contents = np.arange(len(part), dtype=np.int32)
    contents[-3:] = contents[-1]
    groups, incomplete = linked_groups(found, rows, 0.9, contents)
    exact = near_duplicates(part, 0.9, contents)
    assert incomplete == 0
    assert [[row for row, _ in group] for group in groups] == [[row for row, _ in group] for group in exact]
    assert np.allclose([score for group in groups for _, score in group], [s for group in exact for _, s in group])
    assert np.allclose(mean_similarities(found, rows, 5), outlier_scores(part, 5), atol=1e-5)


def test_rows_that_may_have_more_near_duplicates_than_neighbours_are_counted(made):
    found = made(7)[0]
    contents = np.arange(600, dtype=np.int32)
    assert linked_groups(found, None, 0.2, contents)[1] == (found.similarities[:, -1] >= 0.2).sum() > 0
    assert linked_groups(found, None, 1.0, contents)[1] == 0


async def test_a_large_set_needs_its_graph_and_a_small_part_of_it_does_not(store, tmp_path, dataset):
    exact = Neighbours(store, tmp_path / "sets")
    neighbours = Neighbours(store, tmp_path / "sets", max_pairwise_rows=2)
    with pytest.raises(GraphNeeded, match="make their graph first"):
        await neighbours.duplicates(dataset.id, 0.99)
    with pytest.raises(GraphNeeded):
        await neighbours.outliers(dataset.id, 2, 3)
    with pytest.raises(InvalidRequest, match="at most 100"):
        await neighbours.outliers(dataset.id, 101, 3)
    some = f"file_name = '{FILES[0].file_name}'"
    assert len(await neighbours.outliers(dataset.id, 2, 3, some)) == 1

    found = await SetFiles(tmp_path / "sets", store).current(dataset.id)
    make_graph(found.folder, 1, lambda done, total: None)
    assert (await neighbours.duplicates(dataset.id, 0.99)).groups == (await exact.duplicates(dataset.id, 0.99)).groups
    with pytest.raises(GraphNeeded, match='"k": 15'):
        await neighbours.outliers(dataset.id, 2, 3)
    make_graph(found.folder, 15, lambda done, total: None)
    assert await neighbours.outliers(dataset.id, 2, 3) == await exact.outliers(dataset.id, 2, 3)


async def test_a_graph_goes_with_its_set(store, bench, tmp_path, dataset):
    sets = SetFiles(tmp_path / "sets", store)
    found = await sets.current(dataset.id)
    make_graph(found.folder, 2, lambda done, total: None)
    assert (await sets.graph(found)).k == 2
    bench.embed(dataset, FILES, force=True)
    newer = await sets.current(dataset.id)
    assert await sets.graph(newer) is None
    assert not found.folder.exists()
