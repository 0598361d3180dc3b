from concurrent.futures import ThreadPoolExecutor
from unittest.mock import create_autospec

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn.manifold import trustworthiness

from serve_app.errors import InvalidRequest
from serve_app.projection import graph_neighbours, reduction
from serve_app.projection.reduction import Projection, warm
from serve_app.search.graph_file import GraphFile
from serve_app.search.pairs import nearest
from serve_app.search.similarity import normalised

COSINE = Projection()
EUCLIDEAN = Projection(metric="euclidean")
both_metrics = pytest.mark.parametrize("projection", [COSINE, EUCLIDEAN], ids=lambda p: p.metric)


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    warm()


def reduce(vectors, projection, **options):
    return reduction.reduce(vectors, projection, **options).points


def clustered(n, dimension=8, seed=0):
    """(n, dimension) vectors about four far centres, and the centre of each."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(0, 4, n)
    return (10 * np.eye(4, dimension)[centre] + rng.standard_normal((n, dimension))).astype(np.float32), centre


def separation(points, label):
    """Mean distance between points of different labels over that between points of one label."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    same = label[:, None] == label[None]
    return distance[~same].mean() / distance[same].mean()


@both_metrics
def test_the_same_vectors_and_seed_give_the_same_points_to_the_last_bit(projection):
    vectors, _ = clustered(120)
    assert (reduce(vectors, projection) == reduce(vectors.copy(), projection)).all()


def graph_of(vectors, k):
    rows, scores = nearest(normalised(vectors), k)
    return GraphFile(None, rows, scores)


def test_a_map_from_the_sets_graph_is_the_map():
    vectors, _ = clustered(120)
    assert (reduce(vectors, COSINE, graph=graph_of(vectors, 14)) == reduce(vectors, COSINE)).all()


def test_copies_in_a_graph_count_once_and_what_they_hid_is_looked_for():
    vectors, _ = clustered(120)
    copied = np.concatenate([vectors, vectors[:1].repeat(20, axis=0), vectors[5:10]])
    matrix = normalised(vectors)
    inverse = np.concatenate([np.arange(120), np.zeros(20, int), np.arange(5, 10)])
    names, distances = graph_neighbours.graph_neighbours(graph_of(copied, 15), matrix, np.arange(120), inverse, 15)
    rows, scores = nearest(matrix, 14)
    assert np.array_equal(names[:, 1:], rows)
    assert np.array_equal(names[:, 0], np.arange(120))
    assert np.allclose(distances[:, 1:], 1 - scores, atol=1e-6)


def test_a_graph_that_copies_fill_is_of_no_use(monkeypatch):
    vectors, _ = clustered(120)
    monkeypatch.setattr(graph_neighbours, "MAX_LACKING", 0)
    copied = vectors[:1].repeat(30, axis=0)
    inverse = np.zeros(30, int)
    few = graph_of(copied, 15)
    assert graph_neighbours.graph_neighbours(few, normalised(copied[:1]), np.arange(1), inverse, 2) is None


def test_another_seed_gives_another_map():
    vectors, _ = clustered(60)
    assert (reduce(vectors, COSINE) != reduce(vectors, Projection(random_state=7))).any()


@both_metrics
def test_clusters_stay_together(projection):
    vectors, centre = clustered(200)
    assert separation(reduce(vectors, projection), centre) > 3


def test_cosine_ignores_lengths_and_euclidean_does_not():
    vectors, _ = clustered(60)
    longer = vectors * np.float32(4) ** np.arange(-5, 5, dtype=np.float32).repeat(6)[:, None]
    assert (reduce(longer, COSINE) == reduce(vectors, COSINE)).all()
    assert (reduce(longer, EUCLIDEAN) != reduce(vectors, EUCLIDEAN)).any()


@both_metrics
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 10, 16], ids=lambda n: f"{n} vectors")
def test_a_few_vectors_get_different_finite_points(n, projection):
    vectors, _ = clustered(n)
    points = reduce(vectors, projection)
    assert points.shape == (n, 2)
    assert points.dtype == np.float64
    assert np.isfinite(points).all()
    assert len(np.unique(points, axis=0)) == n


def test_one_vector_lies_at_the_origin_and_two_across_it():
    vectors, _ = clustered(2)
    assert reduce(vectors[:1], COSINE).tolist() == [[0, 0]]
    assert reduce(vectors, COSINE) == pytest.approx(np.array([[1, 0], [-1, 0]]))


@both_metrics
@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((30, 4)),
        np.zeros((30, 4)),
        np.outer(np.arange(1, 31), [1, 2, 0, 0]),
        np.arange(-15, 15)[:, None],
        np.eye(30),
        np.vstack([np.eye(4)] * 10 + [np.zeros((3, 4))]),
        np.random.default_rng(0).standard_normal((30, 4)) * 1e-20,
        1e6 + np.random.default_rng(0).standard_normal((30, 4)),
    ],
    ids=["all equal", "all zero", "on a line", "one dimension", "equidistant", "with zeros", "tiny", "far from zero"],
)
def test_odd_sets_get_finite_points(vectors, projection):
    points = reduce(vectors.astype(np.float32), projection)
    assert points.shape == (len(vectors), 2)
    assert np.isfinite(points).all()


@both_metrics
def test_copies_share_a_point_however_many_there_are(projection):
    vectors, _ = clustered(20)
    copied = np.repeat(vectors, 25, axis=0)
    points = reduce(copied, projection).reshape(20, 25, 2)
    assert (points == points[:, :1]).all()
    assert (points[:, 0] == reduce(vectors, projection)).all()


@both_metrics
def test_the_memory_layout_of_the_vectors_does_not_matter_and_they_are_not_written_to(projection):
    vectors, _ = clustered(30)
    columns_first = np.asfortranarray(vectors)
    columns_first.flags.writeable = False
    assert (reduce(columns_first, projection) == reduce(vectors, projection)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_vectors_that_are_not_finite_are_refused(bad):
    vectors, _ = clustered(5)
    vectors[3, 1] = bad
    with pytest.raises(InvalidRequest, match="not finite"):
        reduce(vectors, COSINE)


def test_both_phases_report_up_to_their_end():
    reports = []
    reduce(clustered(50)[0], COSINE, on_progress=lambda *report: reports.append(report))
    assert [phase for phase, _, _ in reports] == sorted((phase for phase, _, _ in reports), reverse=True)
    for phase in ("neighbours", "layout"):
        done = [done for name, done, _ in reports if name == phase]
        assert done == sorted(done)
        assert done[-1] == next(total for name, _, total in reports if name == phase)


@pytest.mark.parametrize("phase", ["neighbours", "layout"])
def test_what_progress_raises_is_raised_and_the_next_reduction_works_in_any_thread(phase):
    """tqdm keeps its lock when a write raises, and every later progress bar of another thread would wait forever."""

    def stop(name, done, total):
        if name == phase:
            raise TimeoutError

    vectors, _ = clustered(50)
    with pytest.raises(TimeoutError):
        reduce(vectors, COSINE, on_progress=stop)
    with ThreadPoolExecutor(2) as threads:
        maps = list(threads.map(lambda _: reduce(vectors, COSINE), range(2), timeout=240))
    assert (maps[0] == maps[1]).all()


def test_compiled_code_is_kept_on_disk():
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_

    functions = [f for module in (layouts, umap_) for f in vars(module).values() if isinstance(f, Dispatcher)]
    kept = {
        f.py_func.__name__ for f in functions if f.stats.cache_path and (f.stats.cache_hits or f.stats.cache_misses)
    }
    assert kept >= {"smooth_knn_dist", "compute_membership_strengths", "_optimize_layout_euclidean_single_epoch"}


@both_metrics
def test_above_the_exact_limit_umap_searches_itself(projection, monkeypatch):
    """Its search is stood in for, with its signature kept: compiling the real one takes half a minute."""
    from umap import umap_

    searches = []

    def search(matrix, k, metric, **options):
        searches.append((k, metric, options["angular"]))
        distances = np.linalg.norm(matrix[:, None] - matrix[None], axis=2)
        rows = np.argsort(distances, axis=1)[:, :k]
        return rows, np.take_along_axis(distances, rows, axis=1), None

    monkeypatch.setattr(reduction, "_MAX_EXACT_ROWS", 100)
    monkeypatch.setattr(umap_, "nearest_neighbors", create_autospec(umap_.nearest_neighbors, side_effect=search))
    vectors, centre = clustered(101)
    assert separation(reduce(vectors, projection), centre) > 3
    reduce(vectors[:100], projection)
    assert searches == [(15, projection.metric, projection is COSINE)]


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_neighbors": 1},
        {"n_neighbors": 201},
        {"min_dist": -0.1},
        {"min_dist": 1.0},
        {"min_dist": float("nan")},
        {"metric": "manhattan"},
        {"random_state": -1},
        {"random_state": 2**32},
        {"n_epochs": 10},
    ],
    ids=str,
)
def test_parameters_out_of_bounds_are_refused(parameters):
    with pytest.raises(ValidationError):
        Projection(**parameters)


@pytest.mark.parametrize(
    "projection",
    [Projection(n_neighbors=2), Projection(n_neighbors=200), Projection(min_dist=0), Projection(min_dist=0.99)],
    ids=["fewest neighbours", "most neighbours", "smallest distance", "largest distance"],
)
def test_parameters_at_their_bounds_work(projection):
    assert np.isfinite(reduce(clustered(60)[0], projection)).all()


# Around landmarks: the limits are small here. Another file would compile umap once more.

BY_LANDMARKS = {"max_laid_out": 300, "n_landmarks": 100}


@both_metrics
def test_a_map_by_landmarks_keeps_clusters_together_and_says_how_many_there_were(projection):
    vectors, centre = clustered(400)
    fitted = reduction.reduce(vectors, projection, **BY_LANDMARKS)
    assert fitted.landmarks == 100
    assert np.isfinite(fitted.points).all()
    assert separation(fitted.points, centre) > 3
    assert reduction.reduce(vectors[:300], projection, **BY_LANDMARKS).landmarks is None


def test_neighbours_are_as_near_as_on_a_map_of_all():
    vectors, _ = clustered(600)
    by_landmarks, whole = (
        trustworthiness(
            vectors, reduction.reduce(vectors, Projection(), **sizes).points, n_neighbors=15, metric="cosine"
        )
        for sizes in (BY_LANDMARKS, {})
    )
    assert by_landmarks > whole - 0.02


def test_a_map_by_landmarks_is_the_same_to_the_last_bit_and_another_with_another_seed():
    vectors, _ = clustered(400)
    first, again, other = (
        reduction.reduce(vectors, Projection(random_state=seed), **BY_LANDMARKS).points for seed in (42, 42, 7)
    )
    assert first.tobytes() == again.tobytes()
    assert (first != other).any()


def test_copies_share_a_point_and_count_once():
    vectors, _ = clustered(310)
    copied = np.concatenate([vectors, vectors[:50]])
    points = reduction.reduce(copied, Projection(), **BY_LANDMARKS).points
    assert (points[310:] == points[:50]).all()
    assert reduction.reduce(copied[50:], Projection(), **BY_LANDMARKS).landmarks == 100
    assert reduction.reduce(np.concatenate([vectors[:300]] * 2), Projection(), **BY_LANDMARKS).landmarks is None


def test_the_phases_follow_one_another():
    reports = []
    reduction.reduce(
        clustered(400)[0], Projection(), on_progress=lambda *report: reports.append(report), **BY_LANDMARKS
    )
    assert list(dict.fromkeys(phase for phase, _, _ in reports)) == ["neighbours", "layout", "refinement"]
    assert reports[-1][1:] == (30, 30)


def test_what_progress_raises_in_the_refinement_is_raised():
    def stop(phase, done, total):
        if phase == "refinement":
            raise TimeoutError

    with pytest.raises(TimeoutError):
        reduction.reduce(clustered(400)[0], Projection(), on_progress=stop, **BY_LANDMARKS)
