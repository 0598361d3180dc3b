"""New vectors on a map that stays."""

import tracemalloc

import numpy as np
import pytest

from serve_app.projection.placement import place
from serve_app.projection.reduction import Projection
from tests.unit.projection.test_reduction import both_metrics, clustered


def ignore(phase, done, total):
    """Drop a report of progress."""


def on_a_map(n, n_new, *, seed=0):
    """Vectors about four centres, the points of all but the last, whose centres lie at the corners of a square."""
    vectors, centre = clustered(n, seed=seed)
    corners = 10.0 * np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    points = corners[centre] + np.random.default_rng(seed).normal(scale=0.1, size=(n, 2))
    points[n - n_new :] = np.nan
    return vectors, points, corners[centre]


every_search = pytest.mark.parametrize("max_pairs", [10**9, 0], ids=["all pairs", "by lists"])


@every_search
@both_metrics
def test_new_vectors_come_to_their_cluster_and_the_others_stay_bit_for_bit(projection, max_pairs):
    vectors, kept, corners = on_a_map(400, 40)
    points = place(vectors, kept, projection, ignore, max_pairs=max_pairs)
    assert points[:360].tobytes() == kept[:360].tobytes()
    assert np.abs(points[360:] - corners[360:]).max() < 0.5


@every_search
@both_metrics
def test_a_copy_lies_beside_its_twin_and_two_copies_on_each_other(projection, max_pairs):
    vectors, kept, _ = on_a_map(200, 3)
    vectors[197:] = vectors[[7, 90, 90]]
    points = place(vectors, kept, projection, ignore, max_pairs=max_pairs)
    assert points[197:] == pytest.approx(kept[[7, 90, 90]], abs=1e-3)
    assert (points[198] == points[199]).all()


@every_search
def test_the_same_vectors_are_placed_equally_to_the_last_bit(max_pairs):
    vectors, kept, _ = on_a_map(300, 50)
    maps = [place(vectors.copy(), kept, Projection(), ignore, max_pairs=max_pairs) for _ in range(2)]
    assert maps[0].tobytes() == maps[1].tobytes()


def test_lists_find_most_of_what_all_pairs_find():
    vectors, kept, _ = on_a_map(3_000, 300)
    by_lists, exact = (place(vectors, kept, Projection(), ignore, max_pairs=pairs)[2_700:] for pairs in (0, 10**9))
    assert np.median(np.linalg.norm(by_lists - exact, axis=1)) < 0.02


def test_a_single_known_point_holds_all_new_ones():
    vectors, kept, _ = on_a_map(5, 4)
    assert place(vectors, kept, Projection(), ignore) == pytest.approx(np.repeat(kept[:1], 5, axis=0))


@every_search
def test_progress_ends_with_the_last_list_and_what_it_raises_ends_the_placement(max_pairs):
    vectors, kept, _ = on_a_map(200, 20)
    reports = []
    place(vectors, kept, Projection(), lambda *report: reports.append(report), max_pairs=max_pairs)
    assert reports == [("placement", done + 1, len(reports)) for done in range(len(reports))]

    def stop(phase, done, total):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        place(vectors, kept, Projection(), stop, max_pairs=max_pairs)


def test_a_map_that_has_all_vectors_stays_as_it_is():
    vectors, kept, _ = on_a_map(20, 0)
    assert place(vectors, kept, Projection(), ignore).tobytes() == kept.tobytes()


def test_vectors_without_a_direction_get_a_point_too():
    vectors, kept, _ = on_a_map(50, 5)
    vectors[45:] = 0
    assert np.isfinite(place(vectors, kept, Projection(), ignore)).all()


@every_search
def test_memory_does_not_grow_with_new_vectors_times_what_they_are_compared_with(max_pairs):
    n, n_new = 10_800, 10_000
    vectors, kept, _ = on_a_map(n, n_new)
    tracemalloc.start()
    place(vectors, kept, Projection(), ignore, max_pairs=max_pairs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * n_new * (n - n_new)
