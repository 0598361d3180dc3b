import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.search import curation, pairs
from serve_app.search.curation import near_duplicates, outlier_scores
from serve_app.search.similarity import normalised

matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 25), st.just(3)), elements=st.integers(-2, 2).map(float)
).map(normalised)
tile_sizes = st.sampled_from([1, 4, 2048])


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rows_of(groups):
    return [[row for row, _ in group] for group in groups]


def groups_by_flooding(linked):
    """Components of a boolean matrix, found one row at a time."""
    left, groups = set(range(len(linked))), []
    while left:
        group, front = set(), {min(left)}
        while front:
            group |= front
            front = {int(j) for i in front for j in np.flatnonzero(linked[i])} - group
        left -= group
        groups.append(sorted(group))
    return sorted((group for group in groups if len(group) > 1), key=lambda group: (-len(group), group[0]))


@given(matrices, st.sampled_from([0.3, 0.6, 0.85, 0.95, 1.0]), tile_sizes, st.sampled_from([0, 3, 2**20]))
def test_near_duplicates_are_the_components_of_the_links(matrix, threshold, tile_rows, max_links):
    similarity = matrix @ matrix.T
    np.fill_diagonal(similarity, -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TILE_ROWS", tile_rows)
        patch.setattr(curation, "_MAX_LINKS", max_links)
        groups = near_duplicates(matrix, threshold)
    assert rows_of(groups) == groups_by_flooding(similarity >= threshold - 1e-6)
    for row, score in (link for group in groups for link in group):
        assert score == pytest.approx(similarity[row].max(), abs=1e-6)
        assert score <= 1


def test_links_chain_and_score_is_the_best_link():
    groups = near_duplicates(on_circle(0, 90, 10, 25, 180), np.cos(np.radians(16)))
    assert rows_of(groups) == [[0, 2, 3]]
    assert [score for _, score in groups[0]] == pytest.approx(np.cos(np.radians([10, 10, 15])))


def test_larger_groups_come_first_then_earlier_ones():
    assert rows_of(near_duplicates(on_circle(0, 90, 0, 180, 90, 180, 180), 0.99)) == [[3, 5, 6], [0, 2], [1, 4]]


def test_a_long_chain_across_tiles_is_one_group(monkeypatch):
    monkeypatch.setattr(pairs, "TILE_ROWS", 8)
    order = np.random.default_rng(0).permutation(100)
    matrix = on_circle(*(order * 1.5))
    assert rows_of(near_duplicates(matrix, np.cos(np.radians(1.6)))) == [list(range(100))]


def test_equal_rows_are_found_at_threshold_one_whatever_the_rounding():
    vectors = np.random.default_rng(0).standard_normal((40, 771), dtype=np.float32)
    vectors[33] = vectors[4]
    assert rows_of(near_duplicates(normalised(vectors), 1.0)) == [[4, 33]]


def test_equal_content_is_linked_whatever_the_vectors_and_joins_what_vectors_link():
    groups = near_duplicates(on_circle(0, 90, 180, 270, 271), 0.99, np.array([0, 1, 0, 1, 2]))
    assert rows_of(groups) == [[1, 3, 4], [0, 2]]
    assert [score for _, score in groups[1]] == [1, 1]
    assert [score for _, score in groups[0]] == pytest.approx([1, 1, np.cos(np.radians(1))])


def test_rows_without_direction_have_no_duplicates():
    assert near_duplicates(np.zeros((3, 2), dtype=np.float32), 0.5) == []


@pytest.mark.parametrize("hashes", [None, np.empty(0, np.int32)], ids=["without hashes", "with hashes"])
def test_an_empty_set_has_no_duplicates(hashes):
    assert near_duplicates(np.empty((0, 4), dtype=np.float32), 0.9, hashes) == []


def test_a_single_row_has_no_duplicates():
    assert near_duplicates(on_circle(0), 0.9, np.array([0])) == []


@given(matrices, st.integers(1, 30))
def test_outlier_scores_agree_with_brute_force(matrix, k):
    scores = outlier_scores(matrix, k)
    similarity = matrix @ matrix.T
    k = min(k, len(matrix) - 1)
    for row in range(len(matrix)):
        others = np.sort(np.delete(similarity[row], row))[::-1][:k]
        assert scores[row] == pytest.approx(others.mean() if k else 0, abs=1e-5)


def test_the_odd_one_out_scores_lowest():
    assert outlier_scores(on_circle(0, 5, 200, 10, 15), 2).argmin() == 2


@pytest.mark.parametrize("n", [0, 1], ids=["none", "one"])
def test_outlier_scores_without_neighbours_are_zero(n):
    assert outlier_scores(on_circle(*range(n)), 3).tolist() == [0] * n


def test_results_do_not_change_the_matrix():
    matrix = on_circle(0, 1, 2, 90)
    before = matrix.copy()
    near_duplicates(matrix, 0.9)
    outlier_scores(matrix, 2)
    assert (matrix == before).all()
