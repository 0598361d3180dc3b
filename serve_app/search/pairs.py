"""Comparing all rows with all rows, block by block: exact, and never an N × N matrix.

Letters for shapes: N rows, D dimension, k neighbours, R × C rows of a tile. Products are float32 matrix
products on as many threads as NumPy's BLAS has; nothing here changes that number.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray

# 2048 × 2048 scores are 16 MiB: large enough for full matrix-product speed, small enough for the caches.
TILE_ROWS = 2048

# Scores held at once while neighbours are chosen: 64 MiB, and 128 MiB for the ranks `argpartition` gives them.
BLOCK_SCORES = 2**24

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all); what it raises ends the work."""


def tiles(matrix: VectorArray, *, on_step: OnStep | None = None) -> Iterator[tuple[slice, slice, VectorArray]]:
    """Yield the inner products of all pairs of rows, each unordered pair once: N²·D operations.

    Args:
        matrix: (N, D).
        on_step: told after each tile.

    Yields:
        The rows, the columns (the rows themselves or later ones), and their (R, C) products, in which a row with
        itself is -inf. The array is used again for the next tile.
    """
    bounds = [slice(start, min(start + TILE_ROWS, len(matrix))) for start in range(0, len(matrix), TILE_ROWS)]
    pairs = [(rows, columns) for place, rows in enumerate(bounds) for columns in bounds[place:]]
    buffer = np.empty(min(TILE_ROWS, len(matrix)) ** 2, dtype=np.float32)
    for done, (rows, columns) in enumerate(pairs, start=1):
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        tile = np.matmul(matrix[rows], matrix[columns].T, out=buffer[: shape[0] * shape[1]].reshape(shape))
        if rows == columns:
            np.fill_diagonal(tile, -np.inf)
        yield rows, columns, tile
        if on_step is not None:
            on_step(done, len(pairs))


def nearest(
    matrix: VectorArray, k: int, *, offsets: NDArray[np.float32] | None = None, on_step: OnStep | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find, for every row, the k others of largest inner product: 2·N²·D operations, whatever k.

    Half of these could be saved by symmetry, but keeping k best in both directions costs more than that for
    all but small k.

    Args:
        matrix: (N, D), finite.
        k: neighbours a row, less than N.
        offsets: (N,), taken from the products with each row. With half of each row's squared length, what is
            largest is what is nearest.
        on_step: told after each block of rows.

    Returns:
        Rows and their scores (products less offsets), both (N, k), best first. Which of several equal scores take
        the last places is repeatable, but otherwise unspecified.
    """
    n = len(matrix)
    rows = np.empty((n, k), dtype=np.int32)
    scores = np.empty((n, k), dtype=np.float32)
    starts = range(0, n, max(1, BLOCK_SCORES // max(n, 1)))
    for done, start in enumerate(starts, start=1):
        block = matrix[start : start + starts.step] @ matrix.T
        if offsets is not None:
            block -= offsets
        own = np.arange(len(block))
        block[own, start + own] = -np.inf
        found = np.argpartition(block, n - k, axis=1)[:, n - k :]
        values = np.take_along_axis(block, found, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        rows[start : start + len(block)] = np.take_along_axis(found, order, axis=1)
        scores[start : start + len(block)] = np.take_along_axis(values, order, axis=1)
        if on_step is not None:
            on_step(done, len(starts))
    return rows, scores
