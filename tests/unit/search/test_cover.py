import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.search import cover
from serve_app.search.cover import diverse
from serve_app.search.similarity import normalised

matrices = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 25), st.just(3)), elements=st.integers(-2, 2).map(float)
).map(normalised)


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def with_everything_compared(matrix, n, first, classes):
    """The choice of k-centre greedy and its similarities, in turns; all rows are compared before each choice."""
    sizes = np.bincount(classes)
    turns = sorted(np.flatnonzero(sizes), key=lambda number: -sizes[number])
    closest, chosen, scores = matrix @ matrix[first], [first], [0.0]
    closest[first] = np.inf
    while len(chosen) < n:
        turns = [*turns[1:], turns[0]]
        own = np.flatnonzero((classes == turns[0]) & np.isfinite(closest))
        row = own[closest[own].argmin()]
        chosen.append(int(row))
        scores.append(closest[row])
        closest = np.maximum(closest, matrix @ matrix[row])
        closest[row] = np.inf
    return chosen, scores


@given(matrices, st.integers(0, 30), st.sampled_from([1, 2, 7, None]))
def test_each_diverse_row_is_the_least_similar_to_those_before(matrix, n, pool_rows):
    chosen, scores = diverse(matrix, n, pool_rows=pool_rows)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, len(matrix))
    similarity = matrix @ matrix.T
    for place in range(1, len(chosen)):
        closest = similarity[:, chosen[:place]].max(axis=1)
        closest[chosen[:place]] = np.inf
        assert closest[chosen[place]] == pytest.approx(closest.min(), abs=1e-6)
        assert scores[place] == pytest.approx(closest.min(), abs=1e-6)


def test_diverse_starts_with_the_most_typical_row_and_covers_the_groups():
    assert diverse(on_circle(0, 10, 20, 5, 120, 240), 3)[0].tolist() == [1, 5, 4]


def test_copies_are_chosen_last_and_in_row_order():
    assert diverse(on_circle(0, 0, 0, 90), 4)[0].tolist() == [0, 3, 1, 2]


@pytest.fixture(scope="module")
def crowd():
    """3,000 rows, so unlike that no two similarities are equal."""
    return normalised(np.random.default_rng(3).standard_normal((3000, 16)).astype(np.float32))


@pytest.mark.parametrize("n_classes", [1, 3, 40], ids=["no classes", "few classes", "many classes"])
def test_a_small_pool_makes_the_choice_of_comparing_everything(crowd, n_classes):
    classes = (np.arange(len(crowd)) ** 2 % 97) % n_classes
    given = None if n_classes == 1 else classes
    chosen, scores = diverse(crowd, 120, classes=given, pool_rows=100)
    expected, radii = with_everything_compared(crowd, 120, chosen[0], classes)
    assert chosen.tolist() == expected
    assert scores == pytest.approx(radii, abs=1e-5)


def test_a_choice_reads_the_set_a_few_times_and_not_once_for_each_row(crowd, monkeypatch):
    """Each choice compared its row with the whole set: 1,000 of a million read 1.5 TB of vectors."""
    readings = []
    once = cover.closest_to
    monkeypatch.setattr(cover, "closest_to", lambda *args, **kwargs: readings.append(1) or once(*args, **kwargs))
    diverse(crowd, 200, pool_rows=300)
    assert 1 <= len(readings) <= 40


def test_a_choice_does_not_change_the_matrix():
    matrix = on_circle(0, 1, 2, 90)
    before = matrix.copy()
    diverse(matrix, 2)
    assert (matrix == before).all()
