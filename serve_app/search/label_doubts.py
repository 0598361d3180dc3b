"""Finds labels that the vectors speak against: held-out ridge regression on the labels, ranked by normalised margin.

Letters for shapes: N rows, D dimension, C labels. Every label is predicted from the vectors of all other rows. Ridge
regression has these predictions in closed form, from one inverse of a (D, D) matrix (PRESS: Allen, Technometrics 1974).
The margin between the best other label and the row's own ranks label errors in Confident Learning (Northcutt, Jiang &
Chuang, JAIR 2021). The votes of nearest neighbours found half as many (docs/decisions/0020-findings.md).
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.pairs import OnStep

METHOD = (
    "held-out ridge regression of the labels on the vectors (PRESS, Allen 1974), ranked by normalised margin "
    "(Confident Learning, Northcutt et al. 2021)"
)

SHRINKAGE = 0.3
"""The ridge, in mean eigenvalues of the covariance: 0.1 to 1 found as many errors, within 4 in a hundred."""

MAX_LABELS = 10_000
_BLOCK_NUMBERS = 2**22
_ROUNDING = 1e-6

Array = NDArray[np.float64]


def label_doubts(
    matrix: VectorArray, labels: NDArray[np.int32], n_labels: int, *, on_step: OnStep | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Predict each row's label from the other rows, in N·D·(D + 2·C) operations and O(D·(D + C)) memory.

    Args:
        matrix: (N, D), normalised.
        labels: (N,) numbers below `n_labels`.
        n_labels: C, at least 2.
        on_step: called after each block of rows.

    Returns:
        (N,) the most likely other label, and (N,) how much more likely it is than the row's own, in [-1, 1].
    """
    n_rows = max(1, _BLOCK_NUMBERS // max(n_labels, matrix.shape[1]))
    blocks = [slice(start, min(len(matrix), start + n_rows)) for start in range(0, len(matrix), n_rows)]
    mean, gram, sums = _moments(matrix, labels, n_labels, blocks, on_step)
    shares = np.bincount(labels, minlength=n_labels) / len(matrix)
    # Vectors that are all equal have nothing but rounding in their products.
    ridge = max(SHRINKAGE * float(np.trace(gram)) / len(gram), _ROUNDING * len(matrix))
    inverse = np.linalg.inv(gram + ridge * np.eye(len(gram)))
    weights = inverse @ (sums - len(matrix) * np.outer(mean, shares))
    others, margins = np.empty(len(matrix), np.intp), np.empty(len(matrix), np.float32)
    for done, block in enumerate(blocks, start=1):
        centred = matrix[block] - mean
        leverage = np.minimum(1 / len(matrix) + np.vecdot(centred @ inverse, centred), 1 - 1e-6)
        predicted = centred @ weights + shares
        others[block], margins[block] = _margins(predicted, leverage, labels[block])
        if on_step is not None:
            on_step(len(blocks) + done, 2 * len(blocks))
    return others, margins


def _moments(
    matrix: VectorArray, labels: NDArray[np.int32], n_labels: int, blocks: list[slice], on_step: OnStep | None
) -> tuple[Array, Array, Array]:
    """The (D,) mean, the (D, D) centred products, and the (D, C) sums of the rows of each label."""
    from scipy.sparse import csr_array

    dimension = matrix.shape[1]
    products, sums = np.zeros((dimension, dimension)), np.zeros((n_labels, dimension))
    for done, block in enumerate(blocks, start=1):
        rows = matrix[block]
        products += rows.T @ rows
        ones = np.ones(len(rows), np.float32)
        sums += csr_array((ones, (labels[block], np.arange(len(rows)))), shape=(n_labels, len(rows))) @ rows
        if on_step is not None:
            on_step(done, 2 * len(blocks))
    mean = sums.sum(axis=0) / len(matrix)
    return mean, products - len(matrix) * np.outer(mean, mean), sums.T


def _margins(
    predicted: Array, leverage: Array, labels: NDArray[np.int32]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The best other label of each row, and its held-out prediction minus that of the row's own label.

    Without the row itself, its own label's prediction loses `leverage`, and all grow by 1 / (1 - leverage).
    """
    at = np.arange(len(labels))
    own = predicted[at, labels] - leverage
    predicted[at, labels] = -np.inf
    other = predicted.argmax(axis=1)
    return other, np.clip((predicted[at, other] - own) / (1 - leverage), -1.0, 1.0)
