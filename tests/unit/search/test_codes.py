"""Search by codes: the answer of a scan over all vectors, from few of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from benchmarks.vectors import clustered
from serve_app.search import codes as module
from serve_app.search.codes import Codes
from serve_app.search.similarity import normalised, top_k


def hostile(rows, dimension, seed):
    """Vectors as sets have them: twins, zeros, near-twins, one number that outweighs all others, tiny ones."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, dimension)).astype(np.float32)
    matrix[rng.integers(rows, size=rows // 4)] = matrix[0]
    matrix[rng.integers(rows, size=rows // 8)] *= 1e-20
    matrix[rng.integers(rows, size=rows // 8), 0] = 1e6
    matrix[rng.integers(rows, size=rows // 8)] = 0
    matrix[rows // 2 :] += 3 * matrix[: rows - rows // 2]
    return normalised(matrix)


@given(
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(0, 10**6),
    st.booleans(),
    st.booleans(),
)
def test_the_best_rows_are_always_among_the_candidates(rows, dimension, k, seed, is_filtered, is_foreign):
    matrix = hostile(rows, dimension, seed)
    rng = np.random.default_rng(seed)
    query = normalised(rng.standard_normal((1, dimension)))[0] if is_foreign else matrix[seed % rows]
    only = np.flatnonzero(rng.random(rows) < 0.5) if is_filtered else None
    found = Codes.of(matrix).candidates(query, k, only)
    scores = np.vecdot(matrix.astype(np.float64), query.astype(np.float64))
    looked_at = np.arange(rows) if only is None else only
    best = np.sort(scores[looked_at])[::-1][:k]
    assert set(found) <= set(looked_at)
    assert_array_equal(np.sort(scores[found])[::-1][:k], best)


@pytest.mark.parametrize("exclude", [None, 70_000])
@pytest.mark.parametrize("share", [None, 0.5, 0.01])
def test_a_search_by_codes_is_the_search_of_all_vectors(monkeypatch, exclude, share):
    monkeypatch.setattr(module, "SCANNED_ROWS", 1_000)
    matrix = normalised(clustered(5_000, 64))
    exclude = None if exclude is None else exclude % len(matrix)
    only = None if share is None else np.flatnonzero(np.random.default_rng(1).random(len(matrix)) < share)
    query = matrix[exclude or 0]
    rows, scores = top_k(matrix, query, 10, exclude=exclude, only=only, codes=Codes.of(matrix))
    expected_rows, expected = top_k(matrix, query, 10, exclude=exclude, only=only)
    assert_array_equal(rows, expected_rows)
    assert_array_equal(scores, expected)


def test_codes_leave_few_vectors_to_compare():
    matrix = normalised(clustered(20_000, 384))
    codes = Codes.of(matrix)
    found = [len(codes.candidates(matrix[row], 10)) for row in range(0, 20_000, 2_000)]
    assert np.median(found) < len(matrix) / 50


def test_of_no_rows_there_are_no_candidates():
    assert len(Codes.of(np.empty((0, 4), np.float32)).candidates(np.ones(4, np.float32) / 2, 3)) == 0


def test_where_all_rows_are_equal_the_first_are_found():
    matrix = normalised(np.ones((100, 8)))
    rows, scores = top_k(matrix, matrix[0], 3, codes=Codes.of(matrix))
    assert_array_equal(rows, [0, 1, 2])
    assert np.ptp(scores) == 0
