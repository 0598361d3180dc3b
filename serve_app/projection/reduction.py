"""The 2D map: UMAP turns vectors into points, equally for equal vectors, parameters and seed.

Letters for shapes: N vectors, D dimension, k neighbours. `umap.UMAP` makes the map, with two changes of its inputs. Up
to 50,000 vectors, neighbours come from matrix products: they are exact, and no process spends half a minute compiling
umap's search. Above, they come from the set's graph for the cosine, and from umap's search otherwise. The layout starts
from the two principal components; unlike the spectral start, they cannot fail, and they keep the large-scale
arrangement (Kobak & Linderman, Nature Biotechnology 39, 2021). Above `MAX_LAID_OUT` vectors, a sample is laid out first
and the others come to it (`landmarks`).

Maps are equal to the last bit on one machine with a fixed number of threads, because the order of sums depends on the
threads. This module changes no thread setting; umap takes one of numba's threads while it fits. Its compiled code holds
the GIL for one epoch at a time, about 0.2 s for 100,000 vectors.
"""

import hashlib
import math
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from serve_app.errors import InvalidRequest
from serve_app.projection.epoch_report import EpochReport, OnProgress
from serve_app.projection.graph_neighbours import Neighbours, graph_neighbours
from serve_app.projection.landmarks import refined, spread
from serve_app.records import VectorArray
from serve_app.search.graph_file import GraphFile
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised

MAX_LAID_OUT = 100_000
"""More different vectors than this are laid out by landmarks: the time of umap's layout grows faster than the set."""

N_LANDMARKS = 25_000

# Above this, compiling umap's search (30 s) and running it (about 5 s) is faster than the exact search. This was
# measured on two cores with 768 dimensions. umap's search finds 99.4 % of the 15 neighbours of 100,000 vectors.
_MAX_EXACT_ROWS = 50_000

_BLOCK = 4096

_UNIT = 1e-5
"""How far the squares of lengths may be from one: float32 has seven digits."""

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


@dataclass(frozen=True, slots=True)
class Fitted:
    """(N, 2) finite points, and the number of landmarks if they were laid out first."""

    points: NDArray[np.float64]
    landmarks: int | None = None


def reduce(
    vectors: VectorArray,
    projection: Projection,
    *,
    graph: GraphFile | None = None,
    on_progress: OnProgress | None = None,
    max_laid_out: int = MAX_LAID_OUT,
    n_landmarks: int = N_LANDMARKS,
) -> Fitted:
    """Lay vectors out in the plane.

    Equal vectors get equal points; for cosine, vectors of equal direction do. Up to three different vectors become a
    regular polygon. Above 50,000 vectors, neighbours are approximate. The call blocks until it is done, and other
    calls in this process wait.

    Args:
        vectors: (N, D) float32, finite; N may be 0.
        projection: the parameters; `n_neighbors` is lowered to the number of different vectors.
        graph: the neighbours of the vectors by their cosines, where they are known.
        on_progress: the callback for the phases "neighbours" (counts blocks of rows), "layout" and "refinement" (count
            epochs). Its exception ends the first phase at once, and is raised after the last epoch in the others.
        max_laid_out: the most different vectors that are laid out at once.
        n_landmarks: how many are laid out first if there are more.

    Returns:
        The points, in the order of the vectors.

    Raises:
        InvalidRequest: a vector is not finite.
    """
    if not all(np.isfinite(part).all() for part in _parts(vectors)):
        raise InvalidRequest("some vectors are not finite; generate the embeddings again")
    if not len(vectors):
        return Fitted(np.empty((0, 2)))
    matrix = comparable(vectors, projection)
    first, inverse = distinct(matrix)
    if len(first) < _MIN_LAYOUT_POINTS:
        return Fitted(_polygon(len(first))[inverse])
    if len(first) < len(matrix):
        matrix = matrix[first]
    matrix = centred(matrix, projection)
    on_progress = on_progress or (lambda phase, done, total: None)
    with _numba_lock:
        neighbours = None
        if graph is not None:
            neighbours = graph_neighbours(graph, matrix, first, inverse, min(projection.n_neighbors, len(matrix)))
        if len(matrix) <= max_laid_out:
            return Fitted(_layout(matrix, projection, neighbours, on_progress)[inverse])
        points = _around_landmarks(matrix, projection, neighbours, on_progress, n_landmarks)
        return Fitted(points[inverse], n_landmarks)


def comparable(vectors: VectorArray, projection: Projection) -> VectorArray:
    """(N, D) rows whose products the metric needs: of length one for cosines, and the vectors for distances."""
    if projection.metric == "euclidean":
        return np.ascontiguousarray(vectors)
    lengths = (np.abs(np.vecdot(part, part) - 1).max() for part in _parts(vectors))
    return vectors if max(lengths, default=0.0) < _UNIT else normalised(vectors)  # those of a set's file have it


def centred(matrix: VectorArray, projection: Projection) -> VectorArray:
    """The rows of `comparable` about their mean for distances, which stay the same and lose fewer digits."""
    if projection.metric == "cosine":
        return matrix
    about_mean: VectorArray = matrix - matrix.mean(axis=0, dtype=np.float64).astype(np.float32)
    return about_mean


def warm() -> None:
    """Compile the code of a reduction, so that the next reduction in this process starts at once.

    This takes about 20 s when umap is used for the first time, and 3 s in later processes. The compiled code is kept
    beside the packages' files or, if those cannot be written, in `NUMBA_CACHE_DIR` or the user's cache folder.
    """
    reduce(np.random.default_rng(0).standard_normal((32, 8), dtype=np.float32), Projection())


def _parts(vectors: VectorArray) -> Iterator[VectorArray]:
    return (vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK))


def distinct(matrix: VectorArray, among: NDArray[np.intp] | None = None) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row of each different vector, and for each row the number of the different vector that it equals.

    With `among`, (M,) rows, it looks at these only, without a copy of them, and the results are places in `among`.

    If an image has more copies than `n_neighbors`, the copies would be neighbours only of each other and drift away as
    an island (umap's `unique` option exists for this). Digests are compared because sorting whole rows takes seconds.
    """
    seen: dict[bytes, int] = {}
    rows = range(len(matrix)) if among is None else among
    digests = (hashlib.blake2b(matrix[row], digest_size=16).digest() for row in rows)
    inverse = np.fromiter((seen.setdefault(digest, len(seen)) for digest in digests), np.intp, len(rows))
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
    epochs = EpochReport("layout", on_progress)
    umap = UMAP(
        n_neighbors=neighbours[0].shape[1],
        min_dist=projection.min_dist,
        precomputed_knn=neighbours,
        init=start,
        random_state=random,
        n_jobs=1,
        tqdm_kwds=epochs.options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="umap")  # it warns that it could not place further vectors
        # Given neighbours and start, umap takes only the length of what it is fitted on, but copies it several times.
        points = umap.fit_transform(start)
    epochs.raise_failure()
    return np.asarray(points, dtype=np.float64)


def _around_landmarks(
    matrix: VectorArray,
    projection: Projection,
    neighbours: Neighbours | None,
    on_progress: OnProgress,
    n_landmarks: int,
) -> NDArray[np.float64]:
    """Lay out (N, D) different vectors by a random sample of them; see `_layout`."""
    random = np.random.RandomState(projection.random_state)
    neighbours = neighbours or _neighbours(matrix, projection, random, on_progress)
    chosen = np.sort(random.permutation(len(matrix))[:n_landmarks])
    landmarks = matrix[chosen]
    laid_out = _layout(landmarks, projection, None, on_progress)
    start = spread(laid_out, chosen, neighbours, matrix)
    return refined(start, neighbours, projection.min_dist, random, on_progress)


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
