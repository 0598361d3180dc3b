"""Large maps, which are laid out around a sample of their vectors. The limits are small here."""

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from serve_app.projection.landmarks import spread, weighted_mean
from serve_app.projection.reduction import Projection, reduce
from tests.unit.projection.test_reduction import both_metrics, clustered, separation

BY_LANDMARKS = {"max_laid_out": 300, "n_landmarks": 100}


@both_metrics
def test_a_map_by_landmarks_keeps_clusters_together_and_says_how_many_there_were(projection):
    vectors, centre = clustered(400)
    fitted = reduce(vectors, projection, **BY_LANDMARKS)
    assert fitted.landmarks == 100
    assert np.isfinite(fitted.points).all()
    assert separation(fitted.points, centre) > 3
    assert reduce(vectors[:300], projection, **BY_LANDMARKS).landmarks is None


def test_neighbours_are_as_near_as_on_a_map_of_all():
    vectors, _ = clustered(600)
    by_landmarks, whole = (
        trustworthiness(vectors, reduce(vectors, Projection(), **sizes).points, n_neighbors=15, metric="cosine")
        for sizes in (BY_LANDMARKS, {})
    )
    assert by_landmarks > whole - 0.02


def test_a_map_by_landmarks_is_the_same_to_the_last_bit_and_another_with_another_seed():
    vectors, _ = clustered(400)
    first, again, other = (
        reduce(vectors, Projection(random_state=seed), **BY_LANDMARKS).points for seed in (42, 42, 7)
    )
    assert first.tobytes() == again.tobytes()
    assert (first != other).any()


def test_copies_share_a_point_and_count_once():
    vectors, _ = clustered(310)
    copied = np.concatenate([vectors, vectors[:50]])
    points = reduce(copied, Projection(), **BY_LANDMARKS).points
    assert (points[310:] == points[:50]).all()
    assert reduce(copied[50:], Projection(), **BY_LANDMARKS).landmarks == 100
    assert reduce(np.concatenate([vectors[:300]] * 2), Projection(), **BY_LANDMARKS).landmarks is None


def test_the_phases_follow_one_another():
    reports = []
    reduce(clustered(400)[0], Projection(), on_progress=lambda *report: reports.append(report), **BY_LANDMARKS)
    assert list(dict.fromkeys(phase for phase, _, _ in reports)) == ["neighbours", "layout", "refinement"]
    assert reports[-1][1:] == (30, 30)


def test_what_progress_raises_in_the_refinement_is_raised():
    def stop(phase, done, total):
        if phase == "refinement":
            raise TimeoutError

    with pytest.raises(TimeoutError):
        reduce(clustered(400)[0], Projection(), on_progress=stop, **BY_LANDMARKS)


def test_vectors_reach_the_landmarks_over_others_and_where_no_way_leads_the_nearest():
    matrix = np.eye(5, dtype=np.float32)
    matrix[4] = [0, 0.6, 0, 0, 0.8]
    rows = np.array([[0, 1], [1, 0], [2, 1], [3, 4], [4, 3]], np.int32)  # 0 – 1 – 2, and 3 – 4 apart
    distances = np.array([[0, 0.5]] * 5, np.float32)
    laid_out = np.array([[7.0, 8.0], [1.0, 2.0]])
    points = spread(laid_out[:1], np.array([0]), (rows, distances), matrix)
    assert points[[0, 1, 2]].tolist() == [[7, 8]] * 3
    assert points[[3, 4]].tolist() == [[7, 8]] * 2
    points = spread(laid_out, np.array([0, 1]), (rows, distances), matrix)
    assert points[[2, 4]].tolist() == [[1, 2]] * 2


def test_the_nearer_counts_more_and_the_infinitely_far_not_at_all():
    points = np.array([[[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]]])
    assert weighted_mean(points, np.array([[0.1, 0.2, np.inf]])) == pytest.approx(np.array([[0.2, 0]]))
    assert weighted_mean(points, np.array([[0.0, 0.2, 0.2]])) == pytest.approx(np.zeros((1, 2)), abs=1e-6)
