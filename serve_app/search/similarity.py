"""Cosine similarity: scales vectors to length one, and finds the rows most similar to a query.

Letters for shapes: N rows, D dimension. Search is exact and makes one pass over the matrix, or over its codes of one
byte a number, so the service needs no approximate index (decision 0025). This module knows rows, not samples: callers
keep the ids beside the matrix.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.codes import Codes

# The number of rows scaled at a time: 16 MiB at D = 1024.
_SCALED_ROWS = 4096

# The squared lengths that float32 sums to within a millionth: squares of larger numbers overflow, of smaller vanish.
_SAFE_SQUARES = (1e-24, 1e24)

# The number of chosen rows that are copied at a time while they are compared: 16 MiB at D = 1024.
_COPIED_ROWS = 4096


# One row in so many is few: to compare the rows themselves is then less work than to read all codes.
_FEW = 8


def normalised(vectors: NDArray[np.floating]) -> VectorArray:
    """Scale rows to length one, in a new matrix of 4·N·D bytes; see `scaled`."""
    return scaled(vectors)[0]


def scaled(vectors: NDArray[np.floating]) -> tuple[VectorArray, NDArray[np.float32]]:
    """Scale rows to length one, in a new matrix of 4·N·D bytes.

    Args:
        vectors: (N, D), of any floating type.

    Returns:
        (N, D) float32, and the (N,) lengths that the rows had. A row that is not finite, or is all zeros and so has no
        direction, becomes zeros; its similarity to every vector is 0.
    """
    unit = np.zeros(vectors.shape, dtype=np.float32)
    lengths = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), _SCALED_ROWS):
        rows = slice(start, start + _SCALED_ROWS)
        # Sums of rows that do not lie in one piece are rounded in another order.
        numbers = np.ascontiguousarray(vectors[rows], np.result_type(vectors, np.float32))
        lengths[rows] = _scale(numbers, unit[rows])
    return unit, lengths


def _scale(rows: NDArray[np.floating], unit: VectorArray) -> NDArray[np.floating]:
    """Put rows of length one into `unit`, which is zeros, and return the lengths."""
    with np.errstate(over="ignore", invalid="ignore"):  # such rows are computed again
        squares = np.vecdot(rows, rows)
        if not ((squares > _SAFE_SQUARES[0]) & (squares < _SAFE_SQUARES[1])).all():
            rows = rows.astype(np.float64)
            squares = np.vecdot(rows, rows)
        norms: NDArray[np.floating] = np.sqrt(squares)
    usable = np.isfinite(norms) & (norms > 0)
    np.divide(rows, norms[:, None], out=unit, where=usable[:, None], casting="same_kind")
    return norms


def top_k(
    matrix: VectorArray,
    query: NDArray[np.floating],
    k: int,
    *,
    exclude: int | None = None,
    only: NDArray[np.intp] | None = None,
    codes: Codes | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find the rows most similar to a query, in one pass over the matrix, or over its codes where they are given.

    Args:
        matrix: (N, D), normalised.
        query: (D,), of any length; a zero or non-finite query scores 0 with every row.
        k: the number of rows to find; fewer are returned if the matrix has fewer.
        exclude: a row to leave out, such as the query's own.
        only: the rows to look at, ascending; all if there is None. The time is proportional to their number.
        codes: those of the matrix. The answer is the same with them.

    Returns:
        Rows and their cosine similarities in [-1, 1], best first; equal scores are in row order.
    """
    unit = normalised(query[None, :])[0]
    wanted = min(k + (exclude is not None), len(matrix) if only is None else len(only))
    if codes is not None and wanted > 0 and (only is None or len(only) > len(matrix) // _FEW):
        candidates = codes.candidates(unit, wanted, only)
        only = candidates if len(candidates) <= len(matrix) // _FEW else only
    if only is not None and exclude is not None:
        only, exclude = only[only != exclude], None
    scores = _scores(matrix, unit, only)
    if exclude is not None:
        scores[exclude] = -np.inf
    k = min(k, len(scores) - (exclude is not None))
    if k <= 0:
        return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32)
    kth_best = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= kth_best)
    rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
    return rows if only is None else only[rows], scores[rows]


def best_of(
    matrix: VectorArray, queries: VectorArray, only: NDArray[np.intp] | None, on_step: Callable[[int, int], object]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Which of P queries each row is most similar to, and its cosine.

    Args:
        matrix: (N, D), normalised.
        queries: (P, D), normalised, P ≥ 1.
        only: the n rows to look at, ascending; all N if there is None.
        on_step: called after each 4,096 rows, with their number so far and n.

    Returns:
        (n,) positions of queries, and (n,) cosines in [-1, 1], in the order of rows. Of equal queries the first counts.
    """
    n_rows = len(matrix) if only is None else len(only)
    best, scores = np.empty(n_rows, np.intp), np.empty(n_rows, np.float32)
    for start in range(0, n_rows, _COPIED_ROWS):
        end = min(start + _COPIED_ROWS, n_rows)
        cosines = (matrix[start:end] if only is None else matrix[only[start:end]]) @ queries.T
        best[start:end] = cosines.argmax(1)
        scores[start:end] = np.clip(cosines.max(1), -1.0, 1.0)
        on_step(end, n_rows)
    return best, scores


def _scores(matrix: VectorArray, query: VectorArray, only: NDArray[np.intp] | None) -> NDArray[np.float32]:
    """The cosines of the rows with a query of length one."""
    # One dot product per row is as fast as a matrix product (memory is the limit), and gives equal rows equal
    # scores to the last bit, which blocked kernels do not promise.
    scores: NDArray[np.float32]
    if only is None:
        scores = np.vecdot(matrix, query)
    else:
        scores = np.empty(len(only), dtype=np.float32)
        for start in range(0, len(only), _COPIED_ROWS):
            rows = only[start : start + _COPIED_ROWS]
            np.vecdot(matrix[rows], query, out=scores[start : start + len(rows)])
    np.clip(scores, -1.0, 1.0, out=scores)
    return scores
