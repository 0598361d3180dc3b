"""Compares all rows with all rows, block by block: results are exact, and no N × N matrix is made.

Letters for shapes: N rows, D dimension, k neighbours, R × C scores of a tile. Products are float32 matrix products on
as many threads as NumPy's BLAS has; this module does not change that number.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray

# 2048 × 2048 scores are 16 MiB: large enough for full matrix-product speed, small enough for the caches.
TILE_ROWS = 2048

# The number of scores in memory while neighbours are chosen: they take 64 MiB, and `argpartition`'s ranks 128 MiB.
BLOCK_SCORES = 2**24

OnStep = Callable[[int, int], None]
"""A callback with the arguments (steps done, all steps); an exception of the callback ends the work."""


def tiles(matrix: VectorArray, *, on_step: OnStep | None = None) -> Iterator[tuple[slice, slice, VectorArray]]:
    """Yield the inner products of all pairs of rows, each unordered pair once, in N²·D operations.

    Args:
        matrix: (N, D).
        on_step: called after each tile.

    Yields:
        The rows, the columns (the same rows or later ones), and their (R, C) products. The product of a row with
        itself is -inf. The next tile reuses the array.
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
    """Find, for every row, the k other rows of largest inner product, in 2·N²·D operations for any k.

    Symmetry could save half of the operations, but keeping the k best in both directions costs more than that unless
    k is small.

    Args:
        matrix: (N, D), finite.
        k: the number of neighbours of each row, less than N.
        offsets: (N,) numbers that are subtracted from the products with each row. If they are half the rows' squared
            lengths, the largest score belongs to the nearest row.
        on_step: called after each block of rows.

    Returns:
        Rows and their scores (products minus offsets), both (N, k), best first. Which of several equal scores take
        the last places is repeatable but otherwise unspecified.
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
