"""Finds dense groups in a neighbour graph: HDBSCAN over the neighbours that two rows share.

Letters for shapes: n rows, k neighbours. Distances in spaces of many dimensions differ little, so that density by them
finds noise, or one large cluster. Here, two rows are close if they are neighbours of one another and share many
(Jarvis & Patrick 1973; Ertöz, Steinbach & Kumar 2003). HDBSCAN (Campello, Moulavi & Sander 2013) is scikit-learn's.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.pairs import OnStep

if TYPE_CHECKING:  # the import takes time that a process which never clusters should not spend
    from scipy.sparse import csr_array

METHOD = (
    "HDBSCAN (Campello et al. 2013) on the neighbour graph; the closeness of two images is the share of neighbours "
    "that they have in common (Jarvis & Patrick 1973)"
)

NAMING = (
    "a name is the phrase that most images of the cluster fit best, of those given, by cosine in the space of the "
    "model's text tower (zero-shot, as CLIP: Radford et al. 2021)"
)

NEIGHBOURS = 15
CORE_NEIGHBOURS = 3
MIN_ROWS = 3
FAR = 2.0
"""Longer than every distance."""
_BLOCK_ROWS = 2048  # with 15 neighbours, 8 MiB of comparisons


def clusters_of(neighbours: NDArray[np.int32], min_size: int, *, on_step: OnStep | None = None) -> NDArray[np.int32]:
    """Cluster rows by their neighbours.

    Args:
        neighbours: (n, k) rows, -1 for none.
        min_size: the least number of rows of a cluster, at least 2.
        on_step: called after each block of rows whose neighbours are compared.

    Returns:
        (n,) numbers of clusters, from 0, the largest first; -1 for rows in none.
    """
    n = len(neighbours)
    if n < max(MIN_ROWS, min_size):
        return np.full(n, -1, np.int32)
    from scipy.sparse.csgraph import connected_components
    from sklearn.cluster import HDBSCAN  # the import takes a second

    rows, edges = _core(_mutual(neighbours, on_step))
    found = np.full(n, -1, np.int32)
    if not len(rows):
        return found
    hdbscan = HDBSCAN(min_cluster_size=min_size, min_samples=CORE_NEIGHBOURS, metric="precomputed", copy=False)
    component = connected_components(edges, directed=False)[1]
    inside = hdbscan.fit_predict(_connected(edges, component))
    # What hangs on a cluster by an added way alone is noise.
    main, _ = majorities(inside, component, inside.max() + 1)
    found[rows] = np.where((inside >= 0) & (component == np.append(main, -1)[inside]), inside, -1)
    return _by_size(found, min_size)


def medoids(matrix: VectorArray, rows: NDArray[np.intp] | None, clusters: NDArray[np.int32]) -> list[int]:
    """The place of the row closest to the mean of each cluster; `rows` are those of the places, None for all."""
    found = []
    by_cluster = np.argsort(clusters, kind="stable")
    borders = np.searchsorted(clusters[by_cluster], np.arange(clusters.max(initial=-1) + 2))
    for start, stop in pairwise(borders):
        places = by_cluster[start:stop]
        found.append(int(places[_most_central(matrix, places if rows is None else rows[places])]))
    return found


def _most_central(matrix: VectorArray, rows: NDArray[np.intp]) -> int:
    """The place in `rows` of the one closest to their mean; a block of them is copied at a time."""
    blocks = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
    total = np.zeros(matrix.shape[1], np.float64)
    for block in blocks:
        total += matrix[block].sum(axis=0, dtype=np.float64)
    mean = (total / len(rows)).astype(np.float32)
    return int(np.concatenate([np.vecdot(matrix[block], mean) for block in blocks]).argmax())


def majorities(
    clusters: NDArray[np.integer], codes: NDArray[np.int32], n_clusters: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The most frequent code of each cluster's rows, and how many have it; rows of code -1 have none."""
    best, most = np.full(n_clusters, -1, np.int64), np.zeros(n_clusters, np.int64)
    pairs = np.stack([clusters, codes], axis=1)[(clusters >= 0) & (codes >= 0)]
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    for place in np.argsort(counts, kind="stable"):  # the largest comes last and counts
        best[distinct[place, 0]], most[distinct[place, 0]] = distinct[place, 1], counts[place]
    return best, most


def _mutual(neighbours: NDArray[np.int32], on_step: OnStep | None) -> "csr_array":
    """(n, n) sparse distances of rows that are neighbours of one another, in (0, 1]."""
    from scipy.sparse import coo_array

    n, k = neighbours.shape
    own = np.repeat(np.arange(n, dtype=np.int32), k)
    there = neighbours.ravel() >= 0
    # The distance of equal neighbourhoods is not 0, since a sparse matrix takes 0 for no edge.
    distances = (1 + (k + 1 - _shared(neighbours, on_step).ravel())) / (k + 2)
    edges = coo_array((distances[there], (own[there], neighbours.ravel()[there])), shape=(n, n)).tocsr()
    return edges.minimum(edges.T).tocsr()


def _core(edges: "csr_array") -> tuple[NDArray[np.intp], "csr_array"]:
    """The rows that are left once those of fewer than `CORE_NEIGHBOURS` edges are taken away, again and again."""
    rows = np.arange(edges.shape[0])
    while len(rows) and (is_sparse := np.diff(edges.indptr) < CORE_NEIGHBOURS).any():
        rows, edges = rows[~is_sparse], edges[~is_sparse][:, ~is_sparse].tocsr()
    return rows, edges


def _connected(edges: "csr_array", component: NDArray[np.int32]) -> "csr_array":
    """The distances with a way of length `FAR` from the first component to each other one, as HDBSCAN wants it."""
    from scipy.sparse import coo_array

    first = np.unique(component, return_index=True)[1]
    ways = coo_array((np.full(len(first) - 1, FAR), (np.full(len(first) - 1, first[0]), first[1:])), shape=edges.shape)
    return (edges + ways + ways.T).tocsr()


def _shared(neighbours: NDArray[np.int32], on_step: OnStep | None) -> NDArray[np.int64]:
    """(n, k) how many neighbours a row and each of its neighbours have in common, themselves included."""
    n, k = neighbours.shape
    closed = np.concatenate([np.arange(n, dtype=np.int32)[:, None], neighbours], axis=1)
    shared = np.empty((n, k), np.int64)
    for start in range(0, n, _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        theirs = closed[neighbours[rows]]
        is_same = (closed[rows, None, :, None] == theirs[:, :, None, :]) & (closed[rows, None, :, None] >= 0)
        shared[rows] = is_same.sum(axis=(2, 3))
        if on_step is not None:
            on_step(min(start + _BLOCK_ROWS, n), n)
    return shared


def _by_size(found: NDArray[np.integer], min_size: int) -> NDArray[np.int32]:
    """The clusters of this size or more, numbered by size; of equal ones the one with the first row is first."""
    names, first, sizes = np.unique(found, return_index=True, return_counts=True)
    is_cluster = (names >= 0) & (sizes >= min_size)
    names, first, sizes = names[is_cluster], first[is_cluster], sizes[is_cluster]
    numbers = np.full(int(found.max(initial=-1)) + 2, -1, np.int32)  # the last place stands for -1
    numbers[names[np.lexsort((first, -sizes))]] = np.arange(len(names), dtype=np.int32)
    numbered: NDArray[np.int32] = numbers[found]
    return numbered
