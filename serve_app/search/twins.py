"""Finds which near-duplicates to keep, and twins across the values of a column: no chains, only pairs of rows.

Letters for shapes: N rows, D dimension. Every `matrix` is normalised, so inner products are cosine similarities.
`contents` are (N,) numbers of contents: rows of one content are twins of similarity 1, whatever their vectors. This
module knows rows, not samples. Results are exact and repeatable.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.curation import ROUNDING
from serve_app.search.pairs import TILE_ROWS, OnStep, tiles

Rows = NDArray[np.int32]


class Kept(NamedTuple):
    """Which row is kept in the place of each: (N,) rows, a row itself where it is kept, and (N,) similarities to it."""

    rows: Rows
    scores: NDArray[np.float32]

    @classmethod
    def nothing(cls, n: int) -> "Kept":
        """The state before any decision: -1 stands for a row that is not decided."""
        return cls(np.full(n, -1, np.int32), np.ones(n, np.float32))

    def decide(self, row: int, twins: NDArray[np.integer], scores: NDArray[np.float32] | float) -> None:
        """Keep a row, and drop those of its twins that are not decided."""
        self.rows[row] = row
        is_free = self.rows[twins] < 0
        self.rows[twins[is_free]] = row
        self.scores[twins[is_free]] = scores[is_free] if isinstance(scores, np.ndarray) else scores

    def groups(self, order: NDArray[np.integer]) -> list[list[int]]:
        """The kept rows that have twins, each with those after it in this order; the largest group first."""
        at = np.empty(len(order), np.int64)
        at[order] = np.arange(len(order))
        dropped = np.flatnonzero(self.rows != np.arange(len(order)))
        dropped = dropped[np.lexsort((at[dropped], at[self.rows[dropped]]))]
        borders = np.flatnonzero(np.diff(self.rows[dropped])) + 1
        groups = [[int(self.rows[rows[0]]), *rows.tolist()] for rows in np.split(dropped, borders) if len(rows)]
        return sorted(groups, key=lambda group: -len(group))


def kept(
    matrix: VectorArray,
    order: NDArray[np.intp],
    threshold: float,
    contents: NDArray[np.int32],
    *,
    on_step: OnStep | None = None,
) -> Kept:
    """Go through the rows in order; keep each that is no twin of one kept before, which otherwise stands for it.

    It takes N²·D operations at most, fewer where many are dropped, and besides O(N) about 50 MiB of memory.

    Args:
        matrix: (N, D), normalised.
        order: the N rows, the most welcome first.
        threshold: the least cosine similarity of twins, in (0, 1].
        contents: (N,).
        on_step: called with the number of rows that are decided, after each tile.
    """
    found = Kept.nothing(len(matrix))
    left = order
    while len(left):
        block, left = left[:TILE_ROWS], left[TILE_ROWS:]
        tile = _similarities(matrix, contents, block, block)
        for place, row in enumerate(block):
            if found.rows[row] < 0:
                is_twin = tile[place] >= threshold - ROUNDING
                found.decide(int(row), block[is_twin], tile[place][is_twin])
        chosen = block[found.rows[block] == block]
        for start in range(0, len(left), TILE_ROWS):
            rows = left[start : start + TILE_ROWS]
            tile = _similarities(matrix, contents, rows, chosen)
            is_twin = tile >= threshold - ROUNDING
            dropped = np.flatnonzero(is_twin.any(axis=1))
            first = is_twin[dropped].argmax(axis=1)
            found.rows[rows[dropped]], found.scores[rows[dropped]] = chosen[first], tile[dropped, first]
            if on_step is not None:
                on_step(len(order) - len(left), len(order))
        left = left[found.rows[left] < 0]
    return found


def _similarities(
    matrix: VectorArray, contents: NDArray[np.int32], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> VectorArray:
    tile: VectorArray = np.minimum(matrix[rows] @ matrix[columns].T, 1.0)
    tile[contents[rows][:, None] == contents[columns]] = 1.0
    return tile


class Across(NamedTuple):
    """Rows with their twin of another class: (M,) each. `is_exact` says that both have one content."""

    rows: NDArray[np.int64]
    twins: NDArray[np.int64]
    scores: NDArray[np.float32]
    is_exact: NDArray[np.bool_]


def across(
    matrix: VectorArray,
    classes: NDArray[np.int32],
    threshold: float,
    contents: NDArray[np.int32],
    *,
    on_step: OnStep | None = None,
) -> Across:
    """Find each row's best twin of another class, in N²·D operations.

    Args:
        matrix: (N, D), normalised.
        classes: (N,) numbers.
        threshold: the least cosine similarity of twins, in (0, 1].
        contents: (N,).
        on_step: called after each tile.

    Returns:
        Pairs, each once; exact ones first, then the most similar.
    """
    best = np.full(len(matrix), -np.inf, np.float32)
    twin = np.full(len(matrix), -1, np.int64)
    for rows, columns, tile in tiles(matrix, on_step=on_step):
        tile[classes[rows][:, None] == classes[columns]] = -np.inf
        for own, other, scores in ((rows, columns, tile), (columns, rows, tile.T)):
            place = scores.argmax(axis=1)
            value = scores[np.arange(len(place)), place]
            is_better = np.flatnonzero(value > best[own])
            best[own.start + is_better], twin[own.start + is_better] = (
                value[is_better],
                other.start + place[is_better],
            )
    return pairs_across(twin, best, classes, threshold, contents)


def pairs_across(
    twin: NDArray[np.int64],
    best: NDArray[np.float32],
    classes: NDArray[np.int32],
    threshold: float,
    contents: NDArray[np.int32],
) -> Across:
    """The pairs of `across`, from the (N,) most similar row of another class, -1 for none, and its similarity."""
    copy = _copies_across(classes, contents)
    is_exact = copy >= 0
    twin = np.where(is_exact, copy, np.where(best >= threshold - ROUNDING, twin, -1))
    best = np.where(is_exact, 1.0, np.minimum(best, 1.0)).astype(np.float32)
    rows = np.flatnonzero(twin >= 0)
    rows = rows[(twin[twin[rows]] != rows) | (rows < twin[rows])]  # of two that are each other's twins, the first
    rows = rows[np.lexsort((rows, -best[rows], ~is_exact[rows]))]
    return Across(rows, twin[rows], best[rows], is_exact[rows])


def _copies_across(classes: NDArray[np.int32], contents: NDArray[np.int32]) -> NDArray[np.int64]:
    """(N,) the first row of the same content and another class; -1 for none."""
    n = len(contents)
    first = _first_of(contents, np.arange(n))
    differs = np.flatnonzero(classes != classes[first])
    other = _first_of(contents, differs)
    return np.where(classes != classes[first], first, other)


def _first_of(contents: NDArray[np.int32], among: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the first of these ascending rows that has the row's content; -1 for none."""
    first = np.full(int(contents.max(initial=-1)) + 1, -1, np.int64)
    first[contents[among[::-1]]] = among[::-1]
    result: NDArray[np.int64] = first[contents]
    return result
