"""Comparing all rows with all rows, one tile at a time: exact, and never an N × N matrix.

Letters for shapes: N rows, D dimension, k neighbours, R × C rows of a tile. Products are float32 matrix
products on as many threads as NumPy's BLAS has; nothing here changes that number.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.records import Vectors

# 2048 × 2048 scores are 16 MiB: large enough for full matrix-product speed, small enough to stay in memory caches.
TILE_ROWS = 2048

OnTile = Callable[[int, int], None]
"""Called with (tiles done, tiles in all); may raise to stop the work."""


def tiles(
    matrix: Vectors, *, offsets: NDArray[np.float32] | None = None, on_tile: OnTile | None = None
) -> Iterator[tuple[slice, slice, Vectors]]:
    """Yield a score for all pairs of rows, each unordered pair once: their inner product, less both offsets.

    Args:
        matrix: (N, D).
        offsets: (N,); none are zeros. With half of each row's squared length the score is -|x - y|²/2.
        on_tile: told after each tile.

    Yields:
        The rows, the columns (never before the rows), and their (R, C) scores. On the diagonal tiles, which come
        first, the scores of a row with itself are -inf. The array is used again for the next tile.
    """
    starts = range(0, len(matrix), TILE_ROWS)
    order = sorted(((r, c) for r in starts for c in starts if r <= c), key=lambda pair: pair[0] != pair[1])
    buffer = np.empty(min(TILE_ROWS, len(matrix)) ** 2, dtype=np.float32)
    for done, (row, column) in enumerate(order, start=1):
        rows, columns = (slice(start, min(start + TILE_ROWS, len(matrix))) for start in (row, column))
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        tile = np.matmul(matrix[rows], matrix[columns].T, out=buffer[: shape[0] * shape[1]].reshape(shape))
        if offsets is not None:
            tile -= offsets[rows, None]
            tile -= offsets[columns]
        if row == column:
            np.fill_diagonal(tile, -np.inf)
        yield rows, columns, tile
        if on_tile is not None:
            on_tile(done, len(order))


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The k best rows of each row, itself excluded, best first.

    Attributes:
        rows: (N, k) int32.
        scores: (N, k) float32.
    """

    rows: NDArray[np.int32]
    scores: NDArray[np.float32]

    def offer(self, first: int, scores: NDArray[np.float32], first_offered: int) -> None:
        """Let rows of a tile compete for places.

        Args:
            first: the row that the tile's first row stands for.
            scores: (R, C); may be a transposed view.
            first_offered: the row that the tile's first column stands for.
        """
        places = slice(first, first + len(scores))
        k = self.rows.shape[1]
        position, offered = _contenders(scores, self.scores[places, -1], k)
        if not len(position):
            return
        touched, group = np.unique(position, return_inverse=True)
        group = np.concatenate([np.repeat(np.arange(len(touched)), k), group])
        rows = np.concatenate([self.rows[places][touched].ravel(), offered + first_offered])
        values = np.concatenate([self.scores[places][touched].ravel(), scores[position, offered]])
        order = np.lexsort((rows, -values, group))
        group_size = np.bincount(group)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(group_size) - group_size, group_size)
        kept = order[rank < k]
        self.rows[places][touched] = rows[kept].reshape(-1, k)
        self.scores[places][touched] = values[kept].reshape(-1, k)


def _contenders(
    scores: NDArray[np.float32], kth_best: NDArray[np.float32], k: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions (row, column) of the scores that beat their row's present k-th best; at most about k a row."""
    n_rows, n_columns = scores.shape
    better = scores > kth_best[:, None]
    # Read in memory order: a transposed view is scanned as fast as the tile itself.
    flat = np.flatnonzero(better.ravel(order="K"))
    if len(flat) <= n_rows * k:
        if better.flags.c_contiguous:
            return np.divmod(flat, n_columns)
        columns, rows = np.divmod(flat, n_rows)
        return rows, columns
    k = min(k, n_columns)
    columns = np.argpartition(scores, n_columns - k, axis=1)[:, n_columns - k :].ravel()
    rows = np.repeat(np.arange(n_rows), k)
    finite = np.isfinite(scores[rows, columns])
    return rows[finite], columns[finite]


def nearest(
    matrix: Vectors, k: int, *, offsets: NDArray[np.float32] | None = None, on_tile: OnTile | None = None
) -> Neighbourhood:
    """Find the k rows with the best score (see `tiles`) of every row, exactly.

    For rows of length one, and no offsets, these are the most similar ones. Costs N²·D floating-point operations
    and, beside the matrix, 8·N·k bytes and 100 MiB of working memory.

    Args:
        matrix: (N, D), finite.
        k: neighbours a row, less than N.
        offsets: (N,), as for `tiles`.
        on_tile: told after each tile.

    Returns:
        Neighbours in order of falling score; which of several equal scores hold the last places is repeatable
        but otherwise unspecified.
    """
    found = Neighbourhood(
        np.full((len(matrix), k), -1, dtype=np.int32), np.full((len(matrix), k), -np.inf, dtype=np.float32)
    )
    for rows, columns, tile in tiles(matrix, offsets=offsets, on_tile=on_tile):
        found.offer(rows.start, tile, columns.start)
        if rows.start != columns.start:
            found.offer(columns.start, tile.T, rows.start)
    return found
