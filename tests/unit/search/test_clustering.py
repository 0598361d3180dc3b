import tracemalloc

import numpy as np
import pytest

from serve_app.search.clustering import clusters_of, majorities, medoids
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised


def blobs(*sizes, n_noise=0):
    """Directions around axes, and random ones."""
    random = np.random.default_rng(1)
    axes = np.repeat(np.eye(len(sizes), 64), sizes, axis=0)
    near = axes + 0.05 * random.standard_normal(axes.shape)
    return normalised(np.concatenate([near, random.standard_normal((n_noise, 64))]))


def test_dense_groups_are_clusters_the_largest_first_and_what_lies_between_is_noise():
    matrix = blobs(20, 40, 30, n_noise=6)
    found = clusters_of(nearest(matrix, 15)[0], 10)
    parts = np.split(found, [20, 60, 90])
    for part, number in zip(parts, (2, 0, 1), strict=False):
        assert set(part.tolist()) <= {number, -1}
        assert (part == number).mean() > 0.8
    assert set(parts[3].tolist()) == {-1}


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_a_few_rows_have_no_cluster_or_one(n):
    neighbours = np.array([[row for row in range(n) if row != own] for own in range(n)], np.int32).reshape(
        n, max(0, n - 1)
    )
    assert set(clusters_of(neighbours, 4).tolist()) <= {-1, 0}


def test_rows_without_neighbours_are_noise():
    matrix = blobs(20, 20)
    neighbours = np.concatenate([nearest(matrix, 15)[0], np.full((3, 15), -1, np.int32)])
    found = clusters_of(neighbours, 10)
    assert found.max() == 1
    assert found[-3:].tolist() == [-1, -1, -1]


def test_a_medoid_is_the_row_closest_to_the_mean_of_its_cluster():
    angles = np.radians([0, 10, 31, 90, 95, 99, 200])
    matrix = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    clusters = np.array([0, 0, 0, 1, 1, 1, -1], np.int32)
    assert medoids(matrix, None, clusters) == [1, 4]
    assert medoids(matrix, np.array([3, 4, 5]), np.array([0, 0, 0], np.int32)) == [1]
    assert medoids(matrix, None, np.full(7, -1, np.int32)) == []


def test_medoids_of_a_large_cluster_do_not_take_a_copy_of_it():
    matrix = normalised(np.random.default_rng(3).standard_normal((20_000, 64)).astype(np.float32))
    tracemalloc.start()
    [medoid] = medoids(matrix, None, np.zeros(len(matrix), np.int32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    products = matrix @ matrix.mean(axis=0)
    assert products[medoid] == pytest.approx(products.max(), abs=1e-6)
    assert peak < matrix.nbytes / 2


def test_a_majority_is_of_the_rows_that_have_a_code():
    best, counts = majorities(
        np.array([0, 0, 0, 1, 1, -1], np.int32), np.array([5, 5, 2, -1, -1, 2], np.int32), n_clusters=2
    )
    assert (best.tolist(), counts.tolist()) == ([5, -1], [2, 0])
