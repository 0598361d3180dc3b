"""A large map around landmarks: a sample that was laid out, to which the other vectors come through their neighbours.

Letters for shapes: N vectors, L landmarks, D dimension, k neighbours. A vector begins at the weighted mean of its
placed neighbours. Then all of them, landmarks too, take some of the last epochs of umap's layout, whose early ones move
them far. What this costs and keeps is in docs/decisions/0021-maps-that-stay.md.
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.projection.epoch_report import EpochReport, OnProgress
from serve_app.projection.graph_neighbours import Neighbours
from serve_app.records import VectorArray

EPOCHS = 30
FIRST_STEP = 0.25
"""umap's step falls from 1 to 0 within 200 epochs; a layout that begins at 1 again forgets where it was."""

_TWIN = 1e-6
_ROWS = 100_000
_LANDMARKS = 4096

Points = NDArray[np.float64]


def spread(laid_out: Points, chosen: NDArray[np.intp], neighbours: Neighbours, matrix: VectorArray) -> Points:
    """Place all vectors at the weighted means of those of their neighbours that are placed already.

    Args:
        laid_out: (L, 2) points of the landmarks.
        chosen: (L,) the rows of the landmarks, ascending.
        neighbours: (N, k) rows and distances, the row itself first.
        matrix: (N, D), for rows that no path of neighbours leads to a landmark.

    Returns:
        (N, 2) points, those of the landmarks unchanged.
    """
    points, is_placed = np.zeros((len(matrix), 2)), np.zeros(len(matrix), bool)
    points[chosen], is_placed[chosen] = laid_out, True
    left = np.flatnonzero(~is_placed)
    while len(left):
        reached = [_step(part, points, is_placed, neighbours) for part in np.array_split(left, -(-len(left) // _ROWS))]
        is_placed[np.concatenate(reached)] = True
        if not is_placed[left].any():
            points[left] = points[chosen[_nearest(matrix, left, matrix[chosen])]]
            break
        left = left[~is_placed[left]]
    return points


def weighted_mean(points: Points, distances: NDArray[np.floating]) -> Points:
    """(n, 2) means of (n, k, 2) points, each weighted by the inverse square of its distance (Shepard, 1968).

    An infinite distance leaves a point out; a distance of 0 leaves out almost all others: a copy lies on its twin.
    """
    weights = 1 / np.maximum(distances, _TWIN).astype(np.float64) ** 2
    weights /= weights.sum(axis=1, keepdims=True)
    mean: Points = np.einsum("nk,nkc->nc", weights, points)
    return mean


def refined(
    start: Points, neighbours: Neighbours, min_dist: float, random: np.random.RandomState, on_progress: OnProgress
) -> Points:
    """Improve (N, 2) points by `EPOCHS` epochs of umap's layout; the callback gets the phase "refinement"."""
    from umap import layouts, umap_

    rows, distances = neighbours
    shape_only = np.empty((len(rows), 1), np.float32)  # with neighbours given, nothing else of the vectors is read
    graph = umap_.fuzzy_simplicial_set(
        shape_only, rows.shape[1], random, "euclidean", knn_indices=rows, knn_dists=distances
    )[0].tocoo()
    is_sampled = graph.data >= graph.data.max() / EPOCHS
    head, tail, strength = (array[is_sampled] for array in (graph.row, graph.col, graph.data))
    a, b = umap_.find_ab_params(1.0, min_dist)
    epochs = EpochReport("refinement", on_progress)
    points = start.astype(np.float32)
    layouts.optimize_layout_euclidean(
        points,
        points,
        head,
        tail,
        EPOCHS,
        len(points),
        umap_.make_epochs_per_sample(strength, EPOCHS),
        a,
        b,
        random.randint(-(2**31), 2**31 - 1, 3).astype(np.int64),
        initial_alpha=FIRST_STEP,
        parallel=False,  # threads would make each map another one
        move_other=True,
        tqdm_kwds=epochs.options,
    )
    epochs.raise_failure()
    return points.astype(np.float64)


def _step(
    part: NDArray[np.intp], points: Points, is_placed: NDArray[np.bool_], neighbours: Neighbours
) -> NDArray[np.intp]:
    """Place those rows of a part that have a placed neighbour, and return them."""
    rows, distances = (array[part, 1:] for array in neighbours)
    is_known = is_placed[rows]
    reached = is_known.any(axis=1)
    known = np.where(is_known, distances, np.inf)[reached]
    points[part[reached]] = weighted_mean(points[rows[reached]], known)
    return part[reached]


def _nearest(matrix: VectorArray, rows: NDArray[np.intp], landmarks: VectorArray) -> NDArray[np.intp]:
    """(n,) the landmark nearest to each of the rows."""
    offsets = np.vecdot(landmarks, landmarks) / 2  # |x - y|² = |x|² - 2(x·y - |y|²/2)
    parts = [
        (matrix[rows[start : start + _LANDMARKS]] @ landmarks.T - offsets).argmax(axis=1)
        for start in range(0, len(rows), _LANDMARKS)
    ]
    return np.concatenate(parts)
