"""Twins to keep and twins across classes, against what a reader of the definition would compute."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.search import graph_curation, pairs, twins
from serve_app.search.graph_file import GraphFile
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised

matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.integers(-2, 2).map(float)
).map(normalised)
thresholds = st.sampled_from([0.3, 0.6, 0.85, 0.95, 1.0])
tile_sizes = st.sampled_from([1, 4, 2048])


def similarities(matrix, contents):
    found = np.minimum(matrix @ matrix.T, 1.0)
    found[contents[:, None] == contents] = 1.0
    return found


@st.composite
def cases(draw):
    """A matrix, an order of its rows, contents that some rows share, and classes."""
    matrix = draw(matrices)
    n = len(matrix)
    numbers = st.lists(st.integers(0, 3), min_size=n, max_size=n).map(lambda values: np.array(values, np.int32))
    shared = draw(numbers)
    contents = np.where(shared == 0, 0, np.arange(1, n + 1)).astype(np.int32)
    return matrix, np.array(draw(st.permutations(range(n))), np.intp), contents, draw(numbers)


def greedy(similar, order, threshold):
    """The kept row of each row, one decision after another."""
    kept = {}
    for row in order.tolist():
        first = next((k for k in kept if kept[k] == k and similar[k, row] >= threshold - 1e-6), None)
        kept[row] = row if first is None else first
    return [kept[row] for row in range(len(order))]


@given(cases(), thresholds, tile_sizes)
def test_every_dropped_row_is_a_twin_of_the_first_row_that_is_kept_before_it(case, threshold, tile_rows):
    matrix, order, contents, _ = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "TILE_ROWS", tile_rows)
        found = twins.kept(matrix, order, threshold, contents)
    similar = similarities(matrix, contents)
    assert found.rows.tolist() == greedy(similar, order, threshold)
    for row, kept in enumerate(found.rows):
        if row != kept:
            assert found.scores[row] == pytest.approx(similar[row, kept], abs=1e-6)


@given(cases(), thresholds)
def test_groups_have_the_kept_row_first_and_the_others_in_order(case, threshold):
    matrix, order, contents, _ = case
    found = twins.kept(matrix, order, threshold, contents)
    groups = found.groups(order)
    place = {row: at for at, row in enumerate(order.tolist())}
    assert [len(group) for group in groups] == sorted((len(group) for group in groups), reverse=True)
    for kept, *dropped in groups:
        assert found.rows[kept] == kept
        assert dropped == sorted(np.flatnonzero((found.rows == kept) & (np.arange(len(order)) != kept)), key=place.get)
    assert sum(len(group) - 1 for group in groups) == (found.rows != np.arange(len(order))).sum()


@given(cases(), thresholds, tile_sizes)
def test_each_row_meets_its_best_twin_of_another_class_once(case, threshold, tile_rows):
    matrix, _, contents, classes = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TILE_ROWS", tile_rows)
        found = twins.across(matrix, classes, threshold, contents)
    similar = similarities(matrix, contents)
    listed = list(zip(found.rows.tolist(), found.twins.tolist(), strict=True))
    assert len({frozenset(pair) for pair in listed}) == len(listed)
    assert all(classes[row] != classes[twin] for row, twin in listed)
    assert [bool(contents[row] == contents[twin]) for row, twin in listed] == found.is_exact.tolist()
    ranks = list(zip(~found.is_exact, -found.scores, strict=True))
    assert ranks == sorted(ranks)
    met = {row for pair in listed for row in pair}
    for row in range(len(classes)):
        best = max((similar[row, o] for o in range(len(classes)) if classes[o] != classes[row]), default=-1)
        assert (row in met) == (best >= threshold - 1e-6)


def graph_of(matrix, k):
    return GraphFile(Path(), *nearest(matrix, k))


@given(cases(), thresholds)
def test_a_graph_of_all_neighbours_says_the_same(case, threshold):
    matrix, order, contents, classes = case
    if len(matrix) < 2:
        return
    graph = graph_of(matrix, len(matrix) - 1)
    exact = twins.kept(matrix, order, threshold, contents)
    found, _ = graph_curation.kept(graph, None, order, threshold, contents)
    assert found.rows.tolist() == exact.rows.tolist()
    # Of several equal twins either may be named, so that pairs may differ, but not who has a twin.
    leaks, _ = graph_curation.across(graph, None, classes, threshold, contents)
    by_all = twins.across(matrix, classes, threshold, contents)
    assert {*leaks.rows, *leaks.twins} == {*by_all.rows, *by_all.twins}
    assert leaks.is_exact.any() == by_all.is_exact.any()


def test_a_graph_answers_about_a_part_by_its_own_rows_and_counts_what_it_may_miss():
    angles = np.radians([0, 1, 2, 3, 90, 91])
    matrix = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    graph, part = graph_of(matrix, 2), np.array([0, 3, 4, 5])
    threshold, alone = np.cos(np.radians(1.5)), np.arange(4, dtype=np.int32)
    found, incomplete = graph_curation.kept(graph, part, np.arange(4), threshold, alone)
    assert found.rows.tolist() == [0, 1, 2, 2]  # 0° and 3° are no twins
    assert incomplete == 0
    assert graph_curation.kept(graph, part, np.arange(4), np.cos(np.radians(2.5)), alone)[1] == 2
    leaks, missed = graph_curation.across(graph, part, np.array([0, 1, 0, 1], np.int32), threshold, alone)
    assert (leaks.rows.tolist(), leaks.twins.tolist(), missed) == ([2], [3], 0)
    _, missed = graph_curation.across(graph, part, np.array([0, 1, 0, 1], np.int32), np.cos(np.radians(2.5)), alone)
    assert missed == 2
