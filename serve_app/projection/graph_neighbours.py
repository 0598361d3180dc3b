"""The neighbours of different vectors, as umap takes them, out of a graph of all vectors, copies included.

Letters for shapes: N vectors, n different ones, D dimension, K neighbours of the graph, k of the map.
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.graph_file import GraphFile
from serve_app.search.similarity import top_k

MAX_LACKING = 1000
"""Vectors whose neighbours may be looked for one by one: each takes one pass over the matrix."""

Neighbours = tuple[NDArray[np.int32], NDArray[np.float32]]


def graph_neighbours(
    graph: GraphFile, matrix: VectorArray, first: NDArray[np.intp], inverse: NDArray[np.intp], k: int
) -> Neighbours | None:
    """The (n, k) neighbours of each different vector and their cosine distances, the vector itself first.

    Copies stand for one vector, so a row of the graph may name too few; these are looked for among all.

    Args:
        graph: (N, K) neighbours.
        matrix: (n, D) different vectors, normalised.
        first: (n,) the vector's first row in the graph.
        inverse: (N,) the different vector of each row of the graph.
        k: at least 2, itself included.

    Returns:
        None where too many vectors lack neighbours.
    """
    own = np.arange(len(first), dtype=np.int32)[:, None]
    names = np.hstack([own, inverse[graph.neighbours[first]].astype(np.int32)])
    scores = np.hstack([np.ones((len(first), 1), np.float32), graph.similarities[first]])
    is_new = _is_first_in_its_row(names)
    lacking = np.flatnonzero(is_new.sum(axis=1) < k)
    if len(lacking) > MAX_LACKING:
        return None
    if names.shape[1] < k:
        names, scores = (np.pad(array, ((0, 0), (0, k - array.shape[1]))) for array in (names, scores))
        is_new = np.pad(is_new, ((0, 0), (0, k - is_new.shape[1])))
    places = np.argsort(~is_new, axis=1, kind="stable")[:, :k]
    names, scores = np.take_along_axis(names, places, axis=1), np.take_along_axis(scores, places, axis=1)
    for row in lacking:
        names[row, 1:], scores[row, 1:] = top_k(matrix, matrix[row], k - 1, exclude=int(row))
    return names, np.maximum(1 - scores, 0)


def _is_first_in_its_row(names: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether no earlier place of the row has the same name."""
    order = np.argsort(names, axis=1, kind="stable")
    ordered = np.take_along_axis(names, order, axis=1)
    is_first = np.ones(names.shape, bool)
    np.put_along_axis(is_first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    return is_first
