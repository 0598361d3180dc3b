"""Makes the neighbour graph of a set: the k most similar rows of every row.

Letters for shapes: N rows, D dimension, k neighbours, B rows of a block, C candidates. Up to `MAX_EXACT_ROWS` all pairs
are compared. Above, faiss compares a row with the lists of rows whose centres are nearest to it (an inverted file), by
codes of one byte a number, and the best candidates are compared again by their vectors. So similarities are exact, and
some neighbours are missed (docs/decisions/0017-neighbour-graph.md has the measured recall).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import Conflict, Unavailable
from serve_app.policy import usable_cores
from serve_app.records import VectorArray
from serve_app.search.graph_file import GraphDraft, GraphFile, largest_graph
from serve_app.search.pairs import nearest_of
from serve_app.search.set_file import SetFile
from serve_app.search.similarity import top_k

MAX_EXACT_ROWS = 50_000
"""Above this, the index is faster than all pairs, the time to make it included."""

BLOCK_ROWS = 2048
"""Rows whose neighbours are looked for and kept together."""

PROBED_LISTS = 16
TRAINING_ROUNDS = 8
TRAINING_ROWS = 40
"""Rows for each centre from which the centres are computed; faiss asks for 39."""

_COMPARED_ROWS = 256  # with 32 candidates of 1024 numbers, a copy of 32 MiB

OnDone = Callable[[int, int], None]
"""A callback with the arguments (rows done, all rows); its exception ends the work."""

Found = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Rows and their similarities, both (B, k), best first."""


class _Engine(Protocol):
    def __call__(self, block: slice, k: int, /) -> Found: ...


def make_graph(folder: Path, k: int, on_done: OnDone, *, max_exact_rows: int = MAX_EXACT_ROWS) -> GraphFile:
    """The graph of the set in a folder with k neighbours or more; it is made, or finished, where it is missing.

    The set's vectors stay in their file, and of each block 150 MB are in memory at most. The index takes N·D bytes.

    Args:
        folder: the folder of a `SetFile`.
        k: neighbours of each row, lowered to N - 1.
        on_done: called after each block.
        max_exact_rows: the largest set whose pairs are all compared.

    Raises:
        Conflict: a newer version of the set has taken its place.
        Unavailable: the disk is full or cannot be written.
    """
    found = SetFile.open(folder)
    if found is None:
        raise Conflict("the vectors were replaced; ask for the graph again")
    shape = (len(found.matrix), min(k, max(0, len(found.matrix) - 1)))
    try:
        with GraphDraft(folder, shape) as draft:
            graph = largest_graph(folder)  # another process may have made it while this one waited
            if graph is not None and graph.k >= shape[1]:
                on_done(*(2 * shape[:1]))
                return graph
            _fill(draft, found.matrix, on_done, max_exact_rows)
            draft.publish()
    except FileNotFoundError as error:
        raise Conflict("the vectors were replaced meanwhile; ask for the graph again") from error
    except OSError as error:
        raise Unavailable(f"The graph cannot be kept in a file: {error.strerror}.") from error
    graph = largest_graph(folder)
    if graph is None:
        raise Unavailable("The graph was damaged while it was written; ask again.")
    return graph


def _fill(draft: GraphDraft, matrix: VectorArray, on_done: OnDone, max_exact_rows: int) -> None:
    """Find and keep the neighbours of all rows that are not yet done."""
    n, k = draft.shape
    done = draft.start()
    on_done(done, n)
    if done == n or not k:
        return
    engine: _Engine = _Index(matrix) if n > max_exact_rows else lambda block, k: nearest_of(matrix, block, k, None)
    while done < n:
        done = draft.put(done, *engine(slice(done, min(n, done + BLOCK_ROWS)), k))
        on_done(done, n)


class _Index:
    """Finds most of the neighbours; the index takes a byte a number in memory, and the vectors stay in their file."""

    def __init__(self, matrix: VectorArray) -> None:
        import faiss  # the import takes 0.3 s and 40 MB, which small sets need not spend

        faiss.omp_set_num_threads(usable_cores())
        n, dimension = matrix.shape
        n_lists = 2 * math.isqrt(n)
        self._matrix = matrix
        kind = f"IVF{n_lists},SQ8"
        self._index = faiss.index_factory(dimension, kind, faiss.METRIC_INNER_PRODUCT)
        lists = faiss.extract_index_ivf(self._index)
        lists.cp.niter, lists.nprobe = TRAINING_ROUNDS, PROBED_LISTS
        self._index.train(matrix[:: max(1, n // (TRAINING_ROWS * n_lists))])
        for start in range(0, n, BLOCK_ROWS):
            self._index.add(matrix[start : start + BLOCK_ROWS])

    def __call__(self, block: slice, k: int) -> Found:
        """The neighbours of the rows of a block."""
        candidates = self._index.search(self._matrix[block], 2 * k + 2)[1]
        rows = np.empty((len(candidates), k), np.int32)
        scores = np.empty((len(candidates), k), np.float32)
        for start in range(0, len(candidates), _COMPARED_ROWS):
            part = slice(start, start + _COMPARED_ROWS)
            own = np.arange(block.start + start, block.start + start + len(rows[part]))
            rows[part], scores[part] = self._compared(own, candidates[part], k)
        return rows, scores

    def _compared(self, own: NDArray[np.int64], candidates: NDArray[np.int64], k: int) -> Found:
        """The best of the (B, C) candidates by their vectors; -1 stands for none."""
        scores = np.einsum("bd,bcd->bc", self._matrix[own], self._matrix[candidates])
        is_none = (candidates < 0) | (candidates == own[:, None])
        scores[is_none] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows = np.take_along_axis(candidates, order, axis=1).astype(np.int32)
        best = np.take_along_axis(scores, order, axis=1).clip(-np.inf, 1.0)
        for place in np.flatnonzero(np.isneginf(best[:, -1])):  # its lists were too short
            rows[place], best[place] = top_k(self._matrix, self._matrix[own[place]], k, exclude=int(own[place]))
        return rows, best
