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

# Rows whose neighbours are looked for together: larger tiles would only take more memory, 64 MiB at this size.
NEAREST_ROWS = 2048
NEAREST_COLUMNS = 8192

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
    starts = range(0, n, NEAREST_ROWS)
    for done, start in enumerate(starts, start=1):
        block = slice(start, min(n, start + NEAREST_ROWS))
        rows[block], scores[block] = nearest_of(matrix, block, k, offsets)
        if on_step is not None:
            on_step(done, len(starts))
    return rows, scores


def nearest_of(
    matrix: VectorArray, block: slice, k: int, offsets: NDArray[np.float32] | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What `nearest` returns for the rows of the block; the time grows with the block, whose scores lie in memory."""
    n_rows = block.stop - block.start
    rows = np.zeros((n_rows, k), dtype=np.int32)
    scores = np.full((n_rows, k), -np.inf, dtype=np.float32)
    for start in range(0, len(matrix), NEAREST_COLUMNS):
        tile = matrix[block] @ matrix[start : start + NEAREST_COLUMNS].T
        if offsets is not None:
            tile -= offsets[start : start + NEAREST_COLUMNS]
        own = np.arange(max(block.start, start), min(block.stop, start + tile.shape[1]))
        tile[own - block.start, own - start] = -np.inf
        (improve if start else begin)(rows, scores, tile, np.arange(start, start + tile.shape[1], dtype=np.int32))
    return rows, scores


def begin(rows: NDArray[np.int32], scores: NDArray[np.float32], tile: VectorArray, names: NDArray[np.int32]) -> None:
    """Put the best columns of the first tile, under their names, into the first places, best first."""
    k = scores.shape[1]
    first = min(k, tile.shape[1])
    found = np.argpartition(tile, tile.shape[1] - first, axis=1)[:, tile.shape[1] - first :]
    values = np.take_along_axis(tile, found, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    rows[:, :first] = names[np.take_along_axis(found, order, axis=1)]
    scores[:, :first] = np.take_along_axis(values, order, axis=1)


def improve(rows: NDArray[np.int32], scores: NDArray[np.float32], tile: VectorArray, names: NDArray[np.int32]) -> None:
    """Let the scores of a further tile, whose columns have these names, replace worse ones.

    After the first tiles few scores are good enough, so that one comparison a score is nearly all of the work.
    """
    k = scores.shape[1]
    row, column = np.nonzero(tile > scores[:, -1:])
    if not len(row):
        return
    touched, counts = np.unique(row, return_counts=True)
    owner = np.concatenate([np.repeat(touched, k), row])
    value = np.concatenate([scores[touched].ravel(), tile[row, column]])
    name = np.concatenate([rows[touched].ravel(), names[column]])
    order = np.lexsort((-value, owner))
    ends = np.cumsum(counts + k)
    kept = order[((ends - counts - k)[:, None] + np.arange(k)).ravel()]
    rows[touched], scores[touched] = name[kept].reshape(-1, k), value[kept].reshape(-1, k)
