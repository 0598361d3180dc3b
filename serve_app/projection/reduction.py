"""The 2D map: UMAP from vectors to points, the same for the same vectors, parameters and seed.

Letters for shapes: N vectors, D dimension, k neighbours. umap's own steps, with two changes of what goes in.
Neighbours come from matrix products (up to 50,000 vectors): exact, and without the half minute that compiling
umap's search takes in every process. The layout starts from the two principal components, which unlike the
spectral start cannot fail, and keep the large-scale arrangement (Kobak & Linderman, Nature Biotechnology 39, 2021).

Equal means equal to the last bit on one machine with one number of threads: sums follow the threads. No thread
setting is read or changed here. umap's compiled code holds the GIL for one epoch at a time, about 0.2 s for
100,000 vectors.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from serve_app.errors import InvalidRequest
from serve_app.records import VectorArray
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised

OnProgress = Callable[[str, int, int], None]
"""Called with (phase, done, total); what it raises, `reduce` raises."""

# Where compiling umap's own search (30 s) and searching approximately (about 5 s) begin to be faster than exactly.
# Measured on two cores with 768 dimensions; of 15 neighbours of 100,000 vectors it finds 99.4 %.
_MAX_EXACT_ROWS = 50_000

# Below this UMAP has nothing to arrange; the points become a regular polygon.
_MIN_LAYOUT_POINTS = 4

# numba's fallback threading layer ends the process when two threads enter parallel code at once.
_numba_lock = threading.Lock()


class Projection(BaseModel):
    """Parameters of a map; the defaults are those of UMAP with a fixed seed and the metric of the vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_neighbors: int = Field(15, ge=2, le=200, description="images that shape a point's place, itself included")
    min_dist: float = Field(0.1, ge=0.0, le=0.99, description="how close points may lie; smaller packs clusters")
    metric: Literal["cosine", "euclidean"] = Field("cosine", description="what makes two vectors near")
    random_state: int = Field(42, ge=0, le=2**32 - 1, description="seed; equal seeds give equal maps")


def reduce(
    vectors: VectorArray, projection: Projection, *, on_progress: OnProgress | None = None
) -> NDArray[np.float64]:
    """Lay vectors out in the plane.

    Equal vectors (of equal direction, for cosine) get equal points. Up to three different vectors are placed on a
    regular polygon. Above 50,000 vectors, neighbours are approximate. Blocks until done; other calls of this
    process wait.

    Args:
        vectors: (N, D) float32, finite; N may be 0.
        projection: the parameters; `n_neighbors` is lowered to the number of different vectors.
        on_progress: told of the phases "neighbours" (in blocks of rows) and "layout" (in epochs). An exception
            ends the first phase at once; in the second it is raised when the layout is done.

    Returns:
        (N, 2), finite, in the order of the vectors.

    Raises:
        InvalidRequest: a vector is not finite.
    """
    if not np.isfinite(vectors).all():
        raise InvalidRequest("some vectors are not finite; generate the embeddings again")
    if not len(vectors):
        return np.empty((0, 2))
    matrix = normalised(vectors) if projection.metric == "cosine" else np.ascontiguousarray(vectors)
    first, inverse = _distinct(matrix)
    if len(first) < _MIN_LAYOUT_POINTS:
        return _polygon(len(first))[inverse]
    matrix = matrix[first]
    if projection.metric == "euclidean":
        matrix -= matrix.mean(axis=0, dtype=np.float64)  # distances stay, and lose fewer digits
    on_progress = on_progress or (lambda phase, done, total: None)
    with _numba_lock:
        return _layout(matrix, projection, on_progress)[inverse]


def warm() -> None:
    """Compile what a reduction runs, so that the next one in this process starts at once.

    Takes about 20 s when umap is used for the first time and 3 s in later processes: the compiled code is kept
    beside the packages' files or, where those cannot be written, in `NUMBA_CACHE_DIR` or the user's cache folder.
    """
    reduce(np.random.default_rng(0).standard_normal((32, 8), dtype=np.float32), Projection())


def _distinct(matrix: VectorArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row of each different vector, and for each row which of those it equals.

    More copies of an image than `n_neighbors` would know only each other and drift off as an island of their own
    (umap's `unique` option exists for this). Digests, because sorting whole rows takes seconds.
    """
    seen: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row, digest_size=16).digest() for row in matrix)
    inverse = np.fromiter((seen.setdefault(digest, len(seen)) for digest in digests), np.intp, len(matrix))
    return np.unique(inverse, return_index=True)[1], inverse


def _polygon(n: int) -> NDArray[np.float64]:
    """(n, 2): the origin for one point, otherwise corners on the unit circle."""
    if n == 1:
        return np.zeros((1, 2))
    angles = 2 * math.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _layout(matrix: VectorArray, projection: Projection, on_progress: OnProgress) -> NDArray[np.float64]:
    """UMAP of (N, D) different vectors, N ≥ 4, already normalised or centred for the metric."""
    from umap import umap_  # 2 s to import, 15 s the first time: not for those who only want `Projection`

    _keep_compiled_code()
    random = np.random.RandomState(projection.random_state)
    rows, distances = _neighbours(matrix, projection, random, on_progress)
    graph, _, _ = umap_.fuzzy_simplicial_set(
        matrix, rows.shape[1], random, projection.metric, knn_indices=rows, knn_dists=distances
    )
    a, b = umap_.find_ab_params(1.0, projection.min_dist)
    epochs = _EpochReport(on_progress)
    points, _ = umap_.simplicial_set_embedding(
        matrix,
        graph,
        n_components=2,
        initial_alpha=1.0,
        a=a,
        b=b,
        gamma=1.0,
        negative_sample_rate=5,
        n_epochs=None,
        init=_principal_components(matrix, random),
        random_state=random,
        metric=projection.metric,
        metric_kwds={},
        densmap=False,
        densmap_kwds={},
        output_dens=False,
        tqdm_kwds={"disable": False, "file": epochs, "bar_format": "{n}/{total}", "mininterval": 0.5},
    )
    epochs.raise_failure()
    return np.asarray(points, dtype=np.float64)


def _keep_compiled_code() -> None:
    """Have numba keep on disk what it compiles for umap, which asks for that in few places: 5 s of each start."""
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_

    for module in (layouts, umap_):
        for function in vars(module).values():
            if isinstance(function, Dispatcher) and not function.signatures:
                function.enable_caching()


def _neighbours(
    matrix: VectorArray, projection: Projection, random: np.random.RandomState, on_progress: OnProgress
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(N, k) rows and distances, each row itself first, as umap expects them."""
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
    """The same from umap's own search, nearest-neighbour descent (Dong et al., WWW 2011)."""
    from umap import umap_

    rows, distances, _ = umap_.nearest_neighbors(
        matrix, k, metric, metric_kwds={}, angular=metric == "cosine", random_state=random
    )
    return rows, distances


def _principal_components(matrix: VectorArray, random: np.random.RandomState) -> NDArray[np.float32]:
    """(N, 2): the first two principal components, within ±10 as umap's own starts are."""
    mean = matrix.mean(axis=0, dtype=np.float64)
    covariance = matrix.T @ matrix / len(matrix) - np.outer(mean, mean)
    axes = np.linalg.eigh(covariance)[1][:, ::-1][:, :2]
    points = np.zeros((len(matrix), 2))
    points[:, : axes.shape[1]] = matrix @ axes.astype(np.float32) - mean @ axes
    # An eigenvector's sign is arbitrary; this choice keeps the map from flipping when a few images are added.
    points *= np.sign(points[np.abs(points).argmax(axis=0), [0, 1]])
    points *= 10 / max(np.abs(points).max(), np.finfo(np.float64).tiny)
    # umap scales each axis by its range; the noise, umap's own, gives a flat axis one.
    return np.asarray(points + random.normal(scale=1e-4, size=points.shape), dtype=np.float32)


class _EpochReport:
    """A text file for tqdm, umap's progress bar, that passes "12/500" on as a call."""

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._failure: Exception | None = None

    def write(self, text: str) -> None:
        done, _, total = text.strip().partition("/")
        if not total or self._failure is not None:
            return
        try:
            self._on_progress("layout", int(done), int(total))
        except Exception as error:  # kept, because tqdm never gives its lock back when a write raises
            self._failure = error

    def flush(self) -> None:
        """Nothing is kept back."""

    def raise_failure(self) -> None:
        """Raise what the callback raised, if it did."""
        if self._failure is not None:
            raise self._failure
