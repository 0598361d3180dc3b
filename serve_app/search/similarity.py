"""Cosine similarity: vectors scaled to length one, and the rows most similar to one query.

Letters for shapes: N rows, D dimension. Search is exact, one pass over the matrix: 1,000,000 × 768 takes
about 0.1 s on one core, so there is no approximate index to build, store or keep in step with the vectors.
Knows rows, not samples: callers keep the ids beside the matrix.
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray

# Rows converted to float64 at a time while norms are taken: 32 MiB at D = 1024.
_NORM_ROWS = 4096


def normalised(vectors: NDArray[np.floating]) -> VectorArray:
    """Scale rows to length one, in a new matrix of 4·N·D bytes.

    Args:
        vectors: (N, D), of any floating type.

    Returns:
        (N, D) float32. A row that is not finite, or has no direction (all zeros), becomes zeros: its
        similarity to everything is 0, and it is never the best match of anything that has one.
    """
    unit = np.zeros(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), _NORM_ROWS):
        # float64, because squares of large float32 values overflow and those of small ones vanish.
        rows = vectors[start : start + _NORM_ROWS].astype(np.float64)
        norms = np.sqrt(np.vecdot(rows, rows))[:, None]
        usable = np.isfinite(norms) & (norms > 0)
        np.divide(rows, norms, out=unit[start : start + _NORM_ROWS], where=usable, casting="same_kind")
    return unit


class Index:
    """A normalised matrix that answers nearest-row queries; safe to share between threads.

    Holds 4·N·D bytes: 3.1 GB for 1,000,000 × 768.

    Attributes:
        matrix: (N, D) float32, rows of length one or zero.
    """

    def __init__(self, vectors: NDArray[np.floating]) -> None:
        self.matrix = normalised(vectors)

    def top_k(
        self, query: NDArray[np.floating], k: int, *, exclude: int | None = None
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Find the rows most similar to a query.

        Args:
            query: (D,), of any length; a zero or non-finite query is similar to nothing and scores 0 everywhere.
            k: how many rows are wanted; fewer come back when there are fewer.
            exclude: a row to leave out, as the query's own.

        Returns:
            Rows and their cosine similarities in [-1, 1], best first, equal scores in row order.
        """
        # One dot product a row rather than a matrix product: just as fast (memory is the limit), and equal rows
        # get equal scores to the last bit, which blocked kernels do not promise.
        scores = np.vecdot(self.matrix, normalised(query[None, :])[0])
        np.clip(scores, -1.0, 1.0, out=scores)
        if exclude is not None:
            scores[exclude] = -np.inf
        k = min(k, len(scores) - (exclude is not None))
        if k <= 0:
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32)
        kth_best = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= kth_best)
        rows = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return rows, scores[rows]
