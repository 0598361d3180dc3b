"""Chooses a few rows that cover a set: each next row is the least similar to all rows chosen before.

Letters for shapes: N rows, D dimension, P rows of the pool. Every `matrix` is normalised, as in `curation`, and neither
copied nor changed. The choice is that of k-centre greedy, up to rounding, but the set is read once for many choices,
not once for each: a similarity to the nearest chosen row only grows, so the least of a pool of rows is the least of the
set for as long as it is below what every other row had when the pool was filled (lazy evaluation: Minoux 1978).
"""

import math
from collections import deque
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serve_app.records import VectorArray
from serve_app.search.pairs import TILE_ROWS, OnStep

POOL_NUMBERS = 2**24
"""The numbers of the pool's vectors, 64 MiB. Each choice reads the pool; a larger one spares readings of the set."""


def diverse(
    matrix: VectorArray,
    n: int,
    *,
    closest: NDArray[np.float32] | None = None,
    classes: NDArray[np.integer] | None = None,
    on_step: OnStep | None = None,
    pool_rows: int | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Choose rows that cover the set: each next row is the least similar to all rows chosen before.

    This is the k-centre greedy algorithm; its radius is at most twice the smallest possible (Gonzalez 1985; Sener &
    Savarese, ICLR 2018, use it for a core-set of images). Gonzalez leaves the first row open; here it is the row
    closest to the mean, the most typical image. Ties go to the first row; similarities that differ by rounding alone
    may go either way. It takes n·N·D operations and, besides the pool, O(N) memory.

    Args:
        matrix: (N, D), normalised.
        n: the number of rows; it is lowered to the number of those that may be chosen.
        closest: (N,) similarities to the nearest of the rows that are chosen already; infinite where a row must not be
            chosen. The array is changed.
        classes: (N,) numbers; the classes take turns, the largest first, for as long as each has rows.
        on_step: called after each choice and, while the set is read for the next ones, after each block of rows.
        pool_rows: P, at least 1; as many rows as have `POOL_NUMBERS` if there is None.

    Returns:
        Different rows in the order of choice, and their similarities to the nearest row chosen before, 0 for the first.
    """
    is_first = closest is None
    if closest is None:
        closest = np.full(len(matrix), -np.inf, dtype=np.float32)
    turns = _turns(closest, classes)
    n = min(n, sum(turn.left for turn in turns))
    choice = _Choice(matrix, closest, pool_rows or max(1, POOL_NUMBERS // max(1, matrix.shape[1])), on_step)
    for place in range(n):
        turn = turns.popleft()
        if is_first and not place:
            choice.begin(int(turn.rows[np.vecdot(matrix, matrix.mean(axis=0))[turn.rows].argmax()]))
        else:
            choice.add([turn, *islice(turns, n - place - 1)])
        turn.left -= 1
        if turn.left:
            turns.append(turn)
        if on_step is not None:
            on_step(place + 1, n)
    return np.array(choice.rows, np.intp), np.array(choice.scores, np.float32).clip(-1.0, 1.0)


def closest_to(matrix: VectorArray, others: VectorArray, *, on_step: OnStep | None = None) -> NDArray[np.float32]:
    """(N,) the similarity of each row to the nearest of (M, D) others, -inf without others; N·M·D operations."""
    closest = np.full(len(matrix), -np.inf, dtype=np.float32)
    starts = [(start, of) for start in range(0, len(matrix), TILE_ROWS) for of in range(0, len(others), TILE_ROWS)]
    for done, (start, of) in enumerate(starts, start=1):
        rows = slice(start, start + TILE_ROWS)
        best = (matrix[rows] @ others[of : of + TILE_ROWS].T).max(axis=1)
        np.maximum(closest[rows], best, out=closest[rows])
        if on_step is not None:
            on_step(done, len(starts))
    return closest


class _Turn:
    """The rows of a class that may be chosen, ascending; `left` of them are not chosen yet."""

    def __init__(self, rows: NDArray[np.intp]) -> None:
        self.rows = rows
        self.left = len(rows)


class _Pooled(NamedTuple):
    """A class's places in the pool; its rows outside come after `last`, a similarity and a row, as it was then."""

    places: slice
    last: tuple[float, float]


class _Choice:
    """The rows chosen so far, and a pool of those that come next: of each class the least similar ones."""

    def __init__(
        self, matrix: VectorArray, closest: NDArray[np.float32], pool_rows: int, on_step: OnStep | None
    ) -> None:
        self.rows: list[int] = []
        self.scores: list[float] = []
        self._matrix = matrix
        self._closest = closest
        """(N,) similarities to the nearest of all rows but the last `_n_unread`; infinite for these and the others."""
        self._n_unread = 0
        self._on_step = on_step
        self._pool_rows = pool_rows
        self._pooled: dict[_Turn, _Pooled] = {}
        self._pool = np.empty(0, np.intp)
        self._vectors = matrix[:0]
        self._near = np.empty(0, np.float32)
        """(P,) similarities of the pool's rows to the nearest of all rows; infinite for chosen ones."""

    def begin(self, row: int) -> None:
        """Choose the first row."""
        self._choose(row, 0.0)

    def add(self, turns: list[_Turn]) -> None:
        """Choose the next row of the first class; the others are those whose turns come next."""
        place = self._next(turns[0])
        if place is None:
            self._fill(turns)
            place = self._next(turns[0])
        assert place is not None, "a class whose turn it is has a row in a new pool"
        row, score = int(self._pool[place]), float(self._near[place])
        self._near[place] = np.inf
        self._choose(row, score)

    def _choose(self, row: int, score: float) -> None:
        np.maximum(self._near, np.vecdot(self._vectors, self._matrix[row]), out=self._near)
        self._closest[row] = np.inf
        self._n_unread += 1
        self.rows.append(row)
        self.scores.append(score)

    def _next(self, turn: _Turn) -> int | None:
        """The place in the pool of a class's next row; None where a row outside may come before it."""
        pooled = self._pooled.get(turn)
        if pooled is None:
            return None
        start = pooled.places.start
        place = int(start + self._near[pooled.places].argmin())
        return place if (float(self._near[place]), float(self._pool[place])) <= pooled.last else None

    def _fill(self, turns: list[_Turn]) -> None:
        """Compare all rows with the rows chosen since the last time, and fill the pool anew."""
        if self._n_unread:
            new = self._matrix[self.rows[-self._n_unread :]]
            np.maximum(self._closest, closest_to(self._matrix, new, on_step=self._on_step), out=self._closest)
            self._n_unread = 0
        share, start, pool = max(1, self._pool_rows // len(turns)), 0, []
        self._pooled = {}
        for turn in turns:
            rows, last = _least(self._closest, turn.rows, share)
            self._pooled[turn] = _Pooled(slice(start, start + len(rows)), last)
            start += len(rows)
            pool.append(rows)
        self._pool = np.concatenate(pool)
        self._vectors = self._matrix[self._pool]
        self._near = self._closest[self._pool]


def _turns(closest: NDArray[np.float32], classes: NDArray[np.integer] | None) -> deque[_Turn]:
    """The classes that have rows which may be chosen, the largest first."""
    rows = np.flatnonzero(~np.isposinf(closest))
    if classes is None:
        return deque([_Turn(rows)] if len(rows) else [])
    by_class = rows[np.argsort(classes[rows], kind="stable")]
    groups = np.split(by_class, np.flatnonzero(np.diff(classes[by_class])) + 1)
    return deque(_Turn(group) for group in sorted(groups, key=lambda group: -len(group)) if len(group))


def _least(
    closest: NDArray[np.float32], rows: NDArray[np.intp], n: int
) -> tuple[NDArray[np.intp], tuple[float, float]]:
    """The n rows, ascending, of the least values, and the last of them in order of values and rows, with its value."""
    if len(rows) <= n:
        return rows, (math.inf, math.inf)
    values = closest[rows]
    bound = np.partition(values, n - 1)[n - 1]
    is_least = values < bound
    equal = np.flatnonzero(values == bound)[: n - int(is_least.sum())]
    is_least[equal] = True
    return rows[is_least], (float(bound), float(rows[equal[-1]]))
