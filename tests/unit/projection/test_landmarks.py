"""Large maps, which are laid out around a sample of their vectors; `test_reduction.py` makes such maps."""

import numpy as np
import pytest

from serve_app.projection.landmarks import spread, weighted_mean


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
