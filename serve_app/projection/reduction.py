"""The 2D map: UMAP turns vectors into points, equally for equal vectors, parameters and seed.

Letters for shapes: N vectors, D dimension, k neighbours. `umap.UMAP` makes the map, with two changes of its inputs. Up
to 50,000 vectors, neighbours come from matrix products: they are exact, and no process spends half a minute compiling
umap's search. Above, they come from the set's graph for the cosine, and from umap's search otherwise. The layout starts
from the two principal components; unlike the spectral start, they cannot fail, and they keep the large-scale
arrangement (Kobak & Linderman, Nature Biotechnology 39, 2021).

Maps are equal to the last bit on one machine with a fixed number of threads, because the order of sums depends on the
threads. This module changes no thread setting; umap takes one of numba's threads while it fits. Its compiled code holds
the GIL for one epoch at a time, about 0.2 s for 100,000 vectors.
"""

import hashlib
import math
import threading
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from serve_app.errors import InvalidRequest
from serve_app.projection.graph_neighbours import Neighbours, graph_neighbours
from serve_app.records import VectorArray
from serve_app.search.graph_file import GraphFile
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised

OnProgress = Callable[[str, int, int], None]
"""A callback with the arguments (phase, done, total); `reduce` raises what the callback raises."""

# Above this, compiling umap's search (30 s) and running it (about 5 s) is faster than the exact search. This was
# measured on two cores with 768 dimensions. umap's search finds 99.4 % of the 15 neighbours of 100,000 vectors.
_MAX_EXACT_ROWS = 50_000

_BLOCK = 4096

# With fewer points, UMAP has nothing to arrange, and they become a regular polygon.
_MIN_LAYOUT_POINTS = 4

# numba's fallback threading layer ends the process when two threads enter parallel code at once.
_numba_lock = threading.Lock()


class Projection(BaseModel):
    """The parameters of a map; the defaults are UMAP's, with a fixed seed and the cosine metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_neighbors: int = Field(15, ge=2, le=200, description="images that shape a point's place, itself included")
    min_dist: float = Field(0.1, ge=0.0, le=0.99, description="how close points may lie; smaller packs clusters")
    metric: Literal["cosine", "euclidean"] = Field("cosine", description="what makes two vectors near")
    random_state: int = Field(42, ge=0, le=2**32 - 1, description="seed; equal seeds give equal maps")


def reduce(
    vectors: VectorArray,
    projection: Projection,
    *,
    graph: GraphFile | None = None,
    on_progress: OnProgress | None = None,
) -> NDArray[np.float64]:
    """Lay vectors out in the plane.

    Equal vectors get equal points; for cosine, vectors of equal direction do. Up to three different vectors become a
    regular polygon. Above 50,000 vectors, neighbours are approximate. The call blocks until it is done, and other
    calls in this process wait.

    Args:
        vectors: (N, D) float32, finite; N may be 0.
        projection: the parameters; `n_neighbors` is lowered to the number of different vectors.
        graph: the neighbours of the vectors by their cosines, where they are known.
        on_progress: the callback for the phases "neighbours" (counts blocks of rows) and "layout" (counts epochs).
            Its exception ends the first phase at once, and is raised after the layout in the second.

    Returns:
        (N, 2) finite points in the order of the vectors.

    Raises:
        InvalidRequest: a vector is not finite.
    """
    if not all(np.isfinite(vectors[start : start + _BLOCK]).all() for start in range(0, len(vectors), _BLOCK)):
        raise InvalidRequest("some vectors are not finite; generate the embeddings again")
    if not len(vectors):
        return np.empty((0, 2))
    matrix = normalised(vectors) if projection.metric == "cosine" else np.ascontiguousarray(vectors)
    first, inverse = _distinct(matrix)
    if len(first) < _MIN_LAYOUT_POINTS:
        return _polygon(len(first))[inverse]
    if len(first) < len(matrix):
        matrix = matrix[first]
    if projection.metric == "euclidean":
        # Distances stay the same and lose fewer digits.
        matrix = matrix - matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
    on_progress = on_progress or (lambda phase, done, total: None)
    with _numba_lock:
        neighbours = None
        if graph is not None:
            neighbours = graph_neighbours(graph, matrix, first, inverse, min(projection.n_neighbors, len(matrix)))
        return _layout(matrix, projection, neighbours, on_progress)[inverse]


def warm() -> None:
    """Compile the code of a reduction, so that the next reduction in this process starts at once.

    This takes about 20 s when umap is used for the first time, and 3 s in later processes. The compiled code is kept
    beside the packages' files or, if those cannot be written, in `NUMBA_CACHE_DIR` or the user's cache folder.
    """
    reduce(np.random.default_rng(0).standard_normal((32, 8), dtype=np.float32), Projection())


def _distinct(matrix: VectorArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row of each different vector, and for each row the number of the different vector that it equals.

    If an image has more copies than `n_neighbors`, the copies would be neighbours only of each other and drift away as
    an island (umap's `unique` option exists for this). Digests are compared because sorting whole rows takes seconds.
    """
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in matrix)
    inverse = np.fromiter((seen.setdefault(digest, len(seen)) for digest in digests), np.intp, len(matrix))
    return np.unique(inverse, return_index=True)[1], inverse


def _polygon(n: int) -> NDArray[np.float64]:
    """(n, 2) points: the origin for n = 1, and otherwise corners on the unit circle."""
    if n == 1:
        return np.zeros((1, 2))
    angles = 2 * math.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _layout(
    matrix: VectorArray, projection: Projection, neighbours: Neighbours | None, on_progress: OnProgress
) -> NDArray[np.float64]:
    """Lay out (N, D) different vectors, N ≥ 4, that are normalised or centred for the metric."""
    from umap import UMAP  # the import takes 2 s, the first time 15 s; modules that need `Projection` avoid it

    _keep_compiled_code()
    random = np.random.RandomState(projection.random_state)
    neighbours = neighbours or _neighbours(matrix, projection, random, on_progress)
    start = _principal_components(matrix, random)
    epochs = _EpochReport(on_progress)
    umap = UMAP(
        n_neighbors=neighbours[0].shape[1],
        min_dist=projection.min_dist,
        precomputed_knn=neighbours,
        init=start,
        random_state=random,
        n_jobs=1,
        tqdm_kwds={"disable": False, "file": epochs, "bar_format": "{n}/{total}", "mininterval": 0.5},
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="umap")  # it warns that it could not place further vectors
        # Given neighbours and start, umap takes only the length of what it is fitted on, but copies it several times.
        points = umap.fit_transform(start)
    epochs.raise_failure()
    return np.asarray(points, dtype=np.float64)


def _keep_compiled_code() -> None:
    """Make numba keep the code compiled for umap on disk, which saves 5 s of each start; umap rarely asks for it."""
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_

    for module in (layouts, umap_):
        for function in vars(module).values():
            if isinstance(function, Dispatcher) and not function.signatures:
                function.enable_caching()


def _neighbours(
    matrix: VectorArray, projection: Projection, random: np.random.RandomState, on_progress: OnProgress
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The (N, k) neighbours and distances of each row as umap expects them, the row itself first."""
    n = len(matrix)
    k = min(projection.n_neighbors, n)
    cosine = projection.metric == "cosine"
    if n > _MAX_EXACT_ROWS:
        return _approximate_neighbours(matrix, k, projection.metric, random)
    squares = np.vecdot(matrix, matrix)
    rows, scores = nearest(
        matrix,
        k - 1,
        # |x - y|² = |x|² - 2(x·y - |y|²/2)
        offsets=None if cosine else squares / 2,
        on_step=lambda done, total: on_progress("neighbours", done, total),
    )
    distances = 1 - scores if cosine else np.sqrt(np.maximum(squares[:, None] - 2 * scores, 0))
    own = np.arange(n, dtype=np.int32)[:, None]
    return np.hstack([own, rows]), np.hstack([np.zeros((n, 1), np.float32), np.maximum(distances, 0)])


def _approximate_neighbours(
    matrix: VectorArray, k: int, metric: str, random: np.random.RandomState
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What `_neighbours` returns, from umap's own nearest-neighbour descent (Dong et al., WWW 2011)."""
    from umap import umap_

    rows, distances, _ = umap_.nearest_neighbors(
        matrix, k, metric, metric_kwds={}, angular=metric == "cosine", random_state=random
    )
    return rows, distances


def _principal_components(matrix: VectorArray, random: np.random.RandomState) -> NDArray[np.float32]:
    """The first two principal components, (N, 2), within ±10 like umap's own starts."""
    mean = matrix.mean(axis=0, dtype=np.float64)
    covariance = matrix.T @ matrix / len(matrix) - np.outer(mean, mean)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    points = np.zeros((len(matrix), 2))
    points[:, : axes.shape[1]] = matrix @ axes.astype(np.float32) - mean @ axes
    # The sign of an eigenvector is arbitrary; this choice keeps the map from flipping when a few images are added.
    points *= np.sign(points[np.abs(points).argmax(axis=0), [0, 1]])
    points *= 10 / max(np.abs(points).max(), np.finfo(np.float64).tiny)
    # umap scales each axis by its range. The noise, which umap adds too, gives a flat axis a range.
    return np.asarray(points + random.normal(scale=1e-4, size=points.shape), dtype=np.float32)


class _EpochReport:
    """A text file for umap's progress bar (tqdm); it turns the text "12/500" into a call."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._failure: Exception | None = None

    def write(self, text: str) -> None:
        done, _, total = text.strip().partition("/")
        if not total or self._failure is not None:
            return
        try:
            self._on_progress("layout", int(done), int(total))
        except Exception as error:  # raised later, because tqdm never releases its lock when a write raises
            self._failure = error

    def flush(self) -> None:
        """Do nothing; no text is buffered."""

    def raise_failure(self) -> None:
        """Raise the exception that the callback raised, if any."""
        if self._failure is not None:
            raise self._failure
