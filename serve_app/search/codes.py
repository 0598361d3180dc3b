"""Codes of one byte a number: an exact search reads them, and the vectors of few rows.

Letters for shapes: N rows, D dimension, k wanted rows. A row x of length one is nearly `scale · code`, and `error` is
the length of the rest. So the cosine with a query lies within the product of the codes plus and minus the errors
(Cauchy-Schwarz), and only rows whose upper bound reaches the k-th best lower bound can be among the best.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numkong
import numpy as np
from numpy.typing import NDArray

from serve_app.policy import usable_cores
from serve_app.records import VectorArray

SCANNED_ROWS = 32_768
"""Rows that a thread compares at a time: 24 MiB of codes at D = 768."""

_CODED_ROWS = 512  # 1.5 MB at D = 768, which stays in a core's cache
_LARGEST = 127
_ROUNDING = 4e-6
"""More than what rounding adds to a product of float32 numbers, to a scale, and to the cosine itself."""


@dataclass(frozen=True, slots=True)
class Codes:
    """The codes of a matrix: (N, D) numbers, and the (N,) scales and errors of the rows."""

    numbers: NDArray[np.int8]
    scales: NDArray[np.float32]
    errors: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: VectorArray) -> "Codes":
        """Code the rows of an (N, D) matrix, in memory."""
        codes = cls.empty(np.empty(matrix.shape, np.int8))
        codes.put(np.arange(len(matrix)), matrix)
        return codes

    @classmethod
    def empty(cls, numbers: NDArray[np.int8]) -> "Codes":
        """No codes yet, with (N, D) bytes where they will be."""
        return cls(numbers, np.zeros(len(numbers), np.float32), np.zeros(len(numbers), np.float32))

    def put(self, rows: NDArray[np.int64], vectors: VectorArray) -> None:
        """Code (n, D) vectors as the rows with these n numbers."""
        for start in range(0, len(rows), _CODED_ROWS):
            part = slice(start, start + _CODED_ROWS)
            at = rows[part]
            self.numbers[at], self.scales[at], self.errors[at] = _coded(vectors[part])

    def candidates(self, query: VectorArray, k: int, only: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
        """The rows that may be among the k with the largest cosines, ascending; all others are surely not.

        Args:
            query: (D,), of length one or zero.
            k: a positive number of rows.
            only: the rows to look at, ascending; all if there is None.
        """
        asked = _Query.of(query)
        starts = range(0, len(self.numbers), SCANNED_ROWS)
        parts = list(_threads().map(lambda start: self._bounds(asked, start, k, only), starts))
        best = np.concatenate([np.empty(0, np.float32), *(part.best for part in parts)])
        least = np.partition(best, len(best) - k)[len(best) - k] if len(best) >= k else -np.inf
        return np.concatenate([np.empty(0, np.intp), *(part.rows[part.upper >= least] for part in parts)])

    def _bounds(self, asked: "_Query", start: int, k: int, only: NDArray[np.intp] | None) -> "_Bounds":
        end = min(start + SCANNED_ROWS, len(self.numbers))
        errors = self.errors[start:end]
        products = np.asarray(numkong.dots_packed(self.numbers[start:end], asked.packed)).astype(np.float32)
        cosines = (products @ asked.scales) * self.scales[start:end]
        slack = errors + asked.error * (1 + errors) + np.float32(_ROUNDING)
        rows = np.arange(start, end) if only is None else only[slice(*np.searchsorted(only, (start, end)))]
        if only is not None:
            cosines, slack = cosines[rows - start], slack[rows - start]
        lower = cosines - slack
        return _Bounds(rows, cosines + slack, lower if len(lower) <= k else np.partition(lower, len(lower) - k)[-k:])


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Of n rows, (n,), the upper bounds of their cosines, and the k largest lower bounds or fewer."""

    rows: NDArray[np.intp]
    upper: NDArray[np.float32]
    best: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Query:
    """A query as the sum of two coded vectors, and the length of the rest, which is some 10,000 times shorter."""

    packed: numkong.PackedMatrix
    scales: VectorArray
    error: np.float32

    @classmethod
    def of(cls, query: VectorArray) -> "_Query":
        first, first_scale, _ = _coded(query[None, :])
        rest = query[None, :] - first_scale[:, None] * first
        second, second_scale, error = _coded(rest)
        packed = numkong.dots_pack(np.concatenate([first, second]), dtype="int8")
        return cls(packed, np.concatenate([first_scale, second_scale]), error[0])


def _coded(rows: VectorArray) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """The codes, scales and errors of (B, D) rows."""
    scales = np.abs(rows).max(axis=1, initial=0) / np.float32(_LARGEST)
    scales[scales == 0] = 1
    numbers = np.rint(rows / scales[:, None])
    rest = rows - scales[:, None] * numbers
    return numbers.astype(np.int8), scales, np.sqrt(np.vecdot(rest, rest))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(usable_cores(), thread_name_prefix="scan")
