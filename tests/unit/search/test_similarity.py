import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.search.similarity import normalised, top_k

finite = st.floats(-1e3, 1e3, width=32)
some_rows = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 8)), elements=finite)


def cosine(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)
    length = np.linalg.norm(one) * np.linalg.norm(other)
    return one @ other / length if length > 0 else 0.0


@given(some_rows)
def test_rows_become_length_one_and_zero_rows_stay_zero(vectors):
    lengths = np.linalg.norm(normalised(vectors).astype(np.float64), axis=1)
    expected = (vectors != 0).any(axis=1).astype(float)
    assert lengths == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e20, 1e38], ids=str)
def test_lengths_whose_squares_leave_float32_are_handled(scale):
    vector = np.array([[3, -4]], dtype=np.float32) * np.float32(scale / 4)
    assert normalised(vector) == pytest.approx(np.array([[0.6, -0.8]]), rel=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_rows_that_are_not_finite_become_zeros(bad):
    assert normalised(np.array([[1, bad], [0, 2]], dtype=np.float32)).tolist() == [[0, 0], [0, 1]]


def test_normalising_leaves_the_input_as_it_was_and_crosses_block_borders():
    vectors = np.random.default_rng(0).standard_normal((9000, 3), dtype=np.float32)
    before = vectors.copy()
    unit = normalised(vectors)
    assert (vectors == before).all()
    assert unit.dtype == np.float32
    assert unit == pytest.approx(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), abs=1e-6)


@given(some_rows, st.integers(0, 40), st.data())
def test_top_k_agrees_with_brute_force(vectors, k, data):
    query = data.draw(hnp.arrays(np.float32, vectors.shape[1], elements=finite))
    exclude = data.draw(st.none() | st.integers(0, len(vectors) - 1))
    rows, scores = top_k(normalised(vectors), query, k, exclude=exclude)
    expected = {row: cosine(vector, query) for row, vector in enumerate(vectors) if row != exclude}
    assert len(set(rows.tolist())) == len(rows) == min(k, len(expected))
    assert scores == pytest.approx([expected[row] for row in rows.tolist()], abs=1e-5)
    assert scores == pytest.approx(sorted(expected.values(), reverse=True)[:k], abs=1e-5)
    assert (np.abs(scores) <= 1).all()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 40))
def test_equal_scores_come_in_row_order(kinds, k):
    vectors = np.random.default_rng(3).standard_normal((3, 65), dtype=np.float32)[kinds]
    rows, scores = top_k(normalised(vectors), vectors[0], k)
    ranked = list(zip((-scores).tolist(), rows.tolist(), strict=True))
    assert ranked == sorted(ranked)
    twins = [row for row, kind in enumerate(kinds) if kind == kinds[0]]
    assert rows[: len(twins)].tolist() == twins[:k]


def test_equal_rows_score_the_same_to_the_last_bit_wherever_they_lie():
    vectors = np.random.default_rng(0).standard_normal((257, 771), dtype=np.float32)
    vectors[1::2] = vectors[1]
    _, scores = top_k(normalised(vectors), vectors[0], 128 + 129)
    assert len(np.unique(scores)) <= 129 + 1


def test_a_row_without_direction_is_never_first():
    vectors = np.array([[0, 0], [np.nan, 1], [1, 0], [np.inf, 0]], dtype=np.float32)
    rows, scores = top_k(normalised(vectors), np.array([2.0, 1.0]), 4)
    assert rows.tolist() == [2, 0, 1, 3]
    assert scores.tolist() == [pytest.approx(2 / 5**0.5), 0, 0, 0]


@pytest.mark.parametrize("query", [[0.0, 0.0], [np.nan, 1.0]], ids=["zero", "not finite"])
def test_a_query_without_direction_scores_zero_everywhere(query):
    rows, scores = top_k(normalised(np.eye(2, dtype=np.float32)), np.array(query), 2)
    assert (rows.tolist(), scores.tolist()) == ([0, 1], [0, 0])


@pytest.mark.parametrize(("n", "k", "exclude"), [(0, 5, None), (1, 5, 0), (3, 0, None)], ids=["empty", "alone", "k=0"])
def test_nothing_is_found_where_nothing_can_be(n, k, exclude):
    rows, scores = top_k(normalised(np.ones((n, 4), dtype=np.float32)), np.ones(4), k, exclude=exclude)
    assert rows.shape == scores.shape == (0,)


def test_a_single_row_is_found():
    rows, scores = top_k(normalised(np.ones((1, 4), dtype=np.float32)), np.ones(4), 10)
    assert rows.tolist() == [0]
    assert scores == pytest.approx([1])


def test_the_excluded_row_is_left_out_even_when_k_reaches_past_the_end():
    rows, _ = top_k(normalised(np.eye(3, dtype=np.float32)), np.array([1.0, 0, 0]), 9, exclude=0)
    assert rows.tolist() == [1, 2]
