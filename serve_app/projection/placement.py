"""New vectors on a map that stays: each lies at the weighted mean of its nearest neighbours that have a point.

Letters for shapes: N vectors, M new ones, D dimension, k neighbours. A few pairs are all compared. Otherwise some of
the placed vectors become centres of lists, each of the others joins the list of its nearest centre, and a new vector is
compared with the lists whose centres are nearest to it. Most of its neighbours are there; the farther ones are missed.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from serve_app.projection.epoch_report import OnProgress
from serve_app.projection.landmarks import Points, weighted_mean
from serve_app.projection.reduction import Projection, centred, comparable, distinct
from serve_app.records import VectorArray
from serve_app.search.pairs import begin, improve

MAX_PAIRS = 200_000_000
"""More pairs than this are not all compared: with 384 numbers, 2 s on two cores."""

PROBED_LISTS = 8

_ROWS = 8192
_ASKED_ROWS = 2048
"""Rows that are compared together with `_ROWS` others: 64 MiB of scores."""

Rows = NDArray[np.intp]


def place(
    vectors: VectorArray,
    kept: Points,
    projection: Projection,
    on_progress: OnProgress,
    *,
    max_pairs: int = MAX_PAIRS,
) -> Points:
    """Give a point to each vector that has none. Equal vectors get equal points; the order of vectors does not matter.

    Args:
        vectors: (N, D) float32.
        kept: (N, 2) points, NaN for the new vectors; at least one is known.
        projection: its metric and number of neighbours.
        on_progress: called with the phase "placement" and pairs of lists.
        max_pairs: the most pairs that are all compared.

    Returns:
        (N, 2) points, the kept ones as they were.
    """
    is_new = np.isnan(kept[:, 0])
    new, known = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    points = kept.copy()
    if not len(new):
        return points
    matrix = centred(comparable(vectors, projection), projection)
    first, inverse = distinct(matrix, new)
    n_lists = 1 if len(first) * len(known) <= max_pairs else min(math.isqrt(len(first) * PROBED_LISTS) + 1, len(known))
    search = _Search(matrix, new[first], projection, min(projection.n_neighbors, len(known)))
    random = np.random.RandomState(projection.random_state)
    for done, (asking, members) in enumerate(search.lists(known, n_lists, random), start=1):
        search.compare(asking, members)
        on_progress("placement", done, n_lists)
    points[new] = weighted_mean(points[search.rows], search.distances())[inverse]
    return points


class _Search:
    """The best k rows for each of the M asked rows so far, and their scores; what is missing scores -inf."""

    def __init__(self, matrix: VectorArray, asked: Rows, projection: Projection, k: int) -> None:
        self._matrix, self._asked = matrix, asked
        is_cosine = projection.metric == "cosine"
        self._offsets = None if is_cosine else np.vecdot(matrix, matrix) / 2  # |x - y|² = |x|² - 2(x·y - |y|²/2)
        self.rows = np.zeros((len(asked), k), np.int32)
        self._scores = np.full((len(asked), k), -np.inf, np.float32)

    def lists(self, known: Rows, n_lists: int, random: np.random.RandomState) -> Iterator[tuple[Rows, Rows]]:
        """Which of the asked rows are to be compared with which of the known ones, list by list."""
        if n_lists == 1:
            yield np.arange(len(self._asked)), known
            return
        centres = known[np.sort(random.permutation(len(known))[:n_lists])]
        own = np.concatenate([self._products(self._taken(part), centres).argmax(axis=1) for part in _parts(known)])
        order = np.argsort(own, kind="stable")
        bounds = np.searchsorted(own[order], np.arange(n_lists + 1))
        nearest = self._nearest_of(centres)
        for number in range(n_lists):
            asking = np.flatnonzero((nearest == number).any(axis=1))
            yield asking, known[order[bounds[number] : bounds[number + 1]]]

    def compare(self, asking: Rows, members: Rows) -> None:
        """Let members become neighbours of the asking rows where they are nearer than those found so far."""
        for some in _parts(asking, _ASKED_ROWS):
            for part in _parts(members):
                tile = self._products(self._taken(self._asked[some]), part)
                is_first = np.isneginf(self._scores[some, 0])
                for chosen, better in ((is_first, begin), (~is_first, improve)):
                    if chosen.any():
                        found = self.rows[some[chosen]], self._scores[some[chosen]]
                        better(*found, tile[chosen], part.astype(np.int32))
                        self.rows[some[chosen]], self._scores[some[chosen]] = found

    def distances(self) -> NDArray[np.float32]:
        """(M, k) distances to the found rows; infinite ones for those that are missing."""
        if self._offsets is None:
            return 1 - self._scores
        squares = 2 * (self._offsets[self._asked, None] - self._scores)
        distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0))
        return distances

    def _nearest_of(self, centres: Rows) -> NDArray[np.int32]:
        """(M, min(PROBED_LISTS, centres)) places of the centres that are nearest to each asked row, in no order."""
        n_probed = min(PROBED_LISTS, len(centres))
        nearest = np.empty((len(self._asked), n_probed), np.int32)
        for start in range(0, len(nearest), _ASKED_ROWS):
            products = self._products(self._taken(self._asked[start : start + _ASKED_ROWS]), centres)
            places = np.argpartition(-products, n_probed - 1, axis=1)[:, :n_probed]
            nearest[start : start + len(places)] = places
        return nearest

    def _products(self, rows: VectorArray, columns: Rows) -> VectorArray:
        """Scores of rows with columns of the matrix, largest for the nearest."""
        products: VectorArray = rows @ self._taken(columns).T
        return products if self._offsets is None else products - self._offsets[columns]

    def _taken(self, rows: Rows) -> VectorArray:
        """These rows of the matrix, which are ascending, without a copy where none is missing between them."""
        is_slice = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
        return self._matrix[rows[0] : rows[-1] + 1] if is_slice else self._matrix[rows]


def _parts(rows: Rows, size: int = _ROWS) -> list[Rows]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
