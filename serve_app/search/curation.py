"""What to look at in a set of images: near-duplicates, outliers, and a few that cover it.

Letters for shapes: N rows, D dimension. Every `matrix` is normalised (`similarity.normalised`), so that inner
products are cosine similarities; it is shared, never copied or changed. Knows rows, not samples. Results are
exact and repeatable.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.pairs import OnStep, nearest, tiles

# float32 products of equal rows differ from 1 by less than this; without it, threshold 1 would miss copies.
_ROUNDING = 1e-6

# Joining takes time for every row, so the links of a tile that has few wait for those of others: 8 bytes each.
_MAX_LINKS = 2**20

Links = tuple[NDArray[np.int32], NDArray[np.int32]]
"""The rows on either side."""
Link = tuple[int, float]
"""A row, and its similarity to the row of its group that is most like it."""


def near_duplicates(
    matrix: VectorArray, threshold: float, content_hashes: Sequence[str] | None = None, *, on_step: OnStep | None = None
) -> list[list[Link]]:
    """Group rows that are linked by similarities of at least the threshold.

    Links chain: two rows of a group may be less similar than the threshold when rows between them are not. Takes
    N²·D floating-point operations and, beside O(N), about 100 MiB of working memory, 300 where most are linked.

    Args:
        matrix: (N, D), normalised.
        threshold: least cosine similarity of a link, in (0, 1].
        content_hashes: N; rows of equal hash are linked with similarity 1, whatever their vectors.
        on_step: told after each tile.

    Returns:
        Groups of two rows and more, largest first, then by first row; rows of a group in rising order.
    """
    group = np.arange(len(matrix), dtype=np.int32)
    best = np.full(len(matrix), -np.inf, dtype=np.float32)
    if content_hashes is not None:
        _, first, inverse, copies = np.unique(
            np.asarray(content_hashes, dtype=str), return_index=True, return_inverse=True, return_counts=True
        )
        group = first[inverse].astype(np.int32)
        best[copies[inverse] > 1] = 1.0
    links: list[Links] = []
    n_links = 0
    for rows, columns, tile in tiles(matrix, on_step=on_step):
        linked = np.flatnonzero(tile >= threshold - _ROUNDING).astype(np.int32)
        if not len(linked):
            continue
        row, column = np.divmod(linked, tile.shape[1])
        links.append((row + rows.start, column + columns.start))
        n_links += len(linked)
        if n_links > _MAX_LINKS:
            group, links, n_links = _joined(group, links), [], 0
        np.maximum(best[rows], tile.max(axis=1), out=best[rows])
        np.maximum(best[columns], tile.max(axis=0), out=best[columns])
    return _groups(_joined(group, links), np.minimum(best, 1.0))


def _joined(group: NDArray[np.int32], links: list[Links]) -> NDArray[np.int32]:
    """Label (N,) rows anew after joining the groups of linked rows."""
    if not links:
        return group
    # 24 MiB and 0.3 s: not for a process that is never asked for duplicates.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = (group[np.concatenate(ends)] for ends in zip(*links, strict=True))
    apart = left != right
    graph = coo_array((apart[apart], (left[apart], right[apart])), shape=(len(group), len(group)))
    joined: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return joined[group]


def _groups(group: NDArray[np.int32], best: NDArray[np.float32]) -> list[list[Link]]:
    """Lists of the rows that share a label, where there are two and more."""
    order = np.argsort(group, kind="stable")
    borders = np.flatnonzero(np.diff(group[order])) + 1
    groups = [members for members in np.split(order, borders) if len(members) > 1]
    groups.sort(key=lambda members: (-len(members), members[0]))
    return [list(zip(members.tolist(), best[members].tolist(), strict=True)) for members in groups]


def outlier_scores(matrix: VectorArray, k: int, *, on_step: OnStep | None = None) -> NDArray[np.float32]:
    """Score each row by its mean similarity to the k rows most like it: the lowest are the outliers.

    Args:
        matrix: (N, D), normalised.
        k: at least 1; lowered to N - 1.
        on_step: told after each block of rows.

    Returns:
        (N,) in [-1, 1]; 0 for a row that is alone.
    """
    k = min(k, len(matrix) - 1)
    if k < 1:
        return np.zeros(len(matrix), dtype=np.float32)
    scores: NDArray[np.float32] = nearest(matrix, k, on_step=on_step)[1].mean(axis=1)
    return scores.clip(-1.0, 1.0)


def diverse(matrix: VectorArray, n: int) -> NDArray[np.intp]:
    """Choose rows that cover the set: each next one is the least similar to all chosen before.

    This is k-centre greedy, within twice the smallest possible radius (Gonzalez 1985; as a core-set of images,
    Sener & Savarese, ICLR 2018). The first, which Gonzalez leaves open, is the row closest to the mean: the most
    typical image. Equal choices fall to the first row. Takes n·N·D operations and O(N) memory.

    Args:
        matrix: (N, D), normalised.
        n: how many rows; lowered to N.

    Returns:
        min(n, N) different rows in the order chosen.
    """
    chosen = np.empty(min(n, len(matrix)), dtype=np.intp)
    closest = np.full(len(matrix), -np.inf, dtype=np.float32)
    for place in range(len(chosen)):
        row = closest.argmin() if place else np.vecdot(matrix, matrix.mean(axis=0)).argmax()
        chosen[place] = row
        np.maximum(closest, np.vecdot(matrix, matrix[row]), out=closest)
        closest[row] = np.inf
    return chosen
