"""Finds what deserves a look in a set of images: near-duplicates and outliers.

Letters for shapes: N rows, D dimension. Every `matrix` is normalised (`similarity.normalised`), so inner products are
cosine similarities; functions neither copy nor change it. This module knows rows, not samples. Results are exact and
repeatable.
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.pairs import OnStep, nearest, tiles

# float32 products of equal rows differ from 1 by less than this. Without the margin, threshold 1 would miss copies.
ROUNDING = 1e-6

# Joining takes time for every row, so links are collected over several tiles up to this number, at 8 bytes each.
_MAX_LINKS = 2**20

Links = tuple[NDArray[np.int32], NDArray[np.int32]]
"""The rows on the two sides of the links."""
Link = tuple[int, float]
"""A row, and its similarity to the most similar row of its group."""


def near_duplicates(
    matrix: VectorArray, threshold: float, contents: NDArray[np.int32] | None = None, *, on_step: OnStep | None = None
) -> list[list[Link]]:
    """Group rows that are linked by similarities of at least the threshold.

    Links form chains: two rows of a group may be less similar than the threshold if other rows connect them. The
    function takes N²·D floating-point operations and, besides O(N), about 100 MiB of memory, or 300 MiB if most rows
    are linked.

    Args:
        matrix: (N, D), normalised.
        threshold: the least cosine similarity of a link, in (0, 1].
        contents: (N,) numbers of contents; rows of one content are linked with similarity 1, whatever their vectors.
        on_step: called after each tile.

    Returns:
        Groups of two or more rows, the largest first, then by first row; rows within a group are ascending.
    """
    group, best = groups_of(np.arange(len(matrix), dtype=np.int32) if contents is None else contents)
    links: list[Links] = []
    n_links = 0
    for rows, columns, tile in tiles(matrix, on_step=on_step):
        linked = np.flatnonzero(tile >= threshold - ROUNDING).astype(np.int32)
        if not len(linked):
            continue
        row, column = np.divmod(linked, tile.shape[1])
        links.append((row + rows.start, column + columns.start))
        n_links += len(linked)
        if n_links > _MAX_LINKS:
            group, links, n_links = joined(group, links), [], 0
        np.maximum(best[rows], tile.max(axis=1), out=best[rows])
        np.maximum(best[columns], tile.max(axis=0), out=best[columns])
    return members_of(joined(group, links), np.minimum(best, 1.0))


def groups_of(contents: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The (N,) labels of groups before any link, and the best similarity of each row: 1 for copies, otherwise -inf."""
    _, first, inverse, copies = np.unique(contents, return_index=True, return_inverse=True, return_counts=True)
    best = np.full(len(contents), -np.inf, dtype=np.float32)
    best[copies[inverse] > 1] = 1.0
    return first[inverse].astype(np.int32), best


def joined(group: NDArray[np.int32], links: list[Links]) -> NDArray[np.int32]:
    """Join the groups of linked rows, and return new (N,) labels."""
    if not links:
        return group
    # The imports take 24 MiB and 0.3 s, which a process that never looks for duplicates should not spend.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = (group[np.concatenate(ends)] for ends in zip(*links, strict=True))
    apart = left != right
    graph = coo_array((apart[apart], (left[apart], right[apart])), shape=(len(group), len(group)))
    joined: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return joined[group]


def members_of(group: NDArray[np.int32], best: NDArray[np.float32]) -> list[list[Link]]:
    """The lists of two or more rows that share a label."""
    order = np.argsort(group, kind="stable")
    borders = np.flatnonzero(np.diff(group[order])) + 1
    groups = [members for members in np.split(order, borders) if len(members) > 1]
    groups.sort(key=lambda members: (-len(members), members[0]))
    return [list(zip(members.tolist(), best[members].tolist(), strict=True)) for members in groups]


def outlier_scores(matrix: VectorArray, k: int, *, on_step: OnStep | None = None) -> NDArray[np.float32]:
    """Score each row by its mean similarity to its k most similar rows; outliers have the lowest scores.

    Args:
        matrix: (N, D), normalised.
        k: at least 1; it is lowered to N - 1.
        on_step: called after each block of rows.

    Returns:
        (N,) scores in [-1, 1]; a single row scores 0.
    """
    k = min(k, len(matrix) - 1)
    if k < 1:
        return np.zeros(len(matrix), dtype=np.float32)
    scores: NDArray[np.float32] = nearest(matrix, k, on_step=on_step)[1].mean(axis=1)
    return scores.clip(-1.0, 1.0)
