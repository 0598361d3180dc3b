import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.search import pairs
from serve_app.search.pairs import nearest, tiles

rows_of_integers = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 40), st.integers(1, 4)), elements=st.integers(-3, 3).map(float)
)


@pytest.fixture(params=[1, 7, 2048], ids=lambda rows: f"tiles of {rows}")
def _tile_rows(request, monkeypatch):
    monkeypatch.setattr(pairs, "TILE_ROWS", request.param)


@pytest.fixture(params=[(1, 1), (3, 7), (7, 3), (2048, 8192)], ids=lambda shape: "blocks of {} × {}".format(*shape))
def _block_shape(request, monkeypatch):
    monkeypatch.setattr(pairs, "NEAREST_ROWS", request.param[0])
    monkeypatch.setattr(pairs, "NEAREST_COLUMNS", request.param[1])


def clustered(n, dimension, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, dimension)) * 3
    return (centres[rng.integers(0, 5, n)] + rng.standard_normal((n, dimension))).astype(np.float32)


@pytest.mark.usefixtures("_tile_rows")
def test_tiles_hold_every_pair_once():
    matrix = clustered(20, 3)
    seen = np.full((20, 20), np.nan)
    for rows, columns, tile in tiles(matrix):
        assert np.isnan(seen[rows, columns]).all()
        seen[rows, columns] = tile
    upper = np.triu_indices(20, 1)
    assert seen[upper] == pytest.approx((matrix @ matrix.T)[upper], rel=1e-5)
    assert (np.diag(seen) == -np.inf).all()


def test_no_rows_have_no_tiles():
    assert list(tiles(np.empty((0, 3), dtype=np.float32))) == []


@given(rows_of_integers, st.data())
def test_nearest_finds_the_best_scores_among_many_ties(matrix, data):
    k = data.draw(st.integers(1, len(matrix) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "NEAREST_ROWS", data.draw(st.sampled_from([1, 5, 2048])))
        patch.setattr(pairs, "NEAREST_COLUMNS", data.draw(st.sampled_from([1, 4, 8192])))
        rows, best = nearest(matrix, k)
    scores = matrix @ matrix.T  # of small integers: exact, so that ties are ties
    np.fill_diagonal(scores, -np.inf)
    assert (best == -np.sort(-scores, axis=1)[:, :k]).all()
    assert (np.take_along_axis(scores, rows, axis=1) == best).all()
    assert all(len(set(row)) == k for row in rows.tolist())


@pytest.mark.usefixtures("_block_shape")
@pytest.mark.parametrize("k", [1, 9, 59], ids=lambda k: f"k={k}")
def test_nearest_with_offsets_of_half_squares_finds_the_closest(k):
    matrix = clustered(60, 8)
    rows, scores = nearest(matrix, k, offsets=np.vecdot(matrix, matrix) / 2)
    distances = np.linalg.norm(matrix[:, None] - matrix[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.take_along_axis(distances, rows, axis=1) == pytest.approx(np.sort(distances, axis=1)[:, :k], abs=1e-3)
    squared = np.vecdot(matrix, matrix)[:, None] - 2 * scores
    assert squared == pytest.approx(np.sort(distances, axis=1)[:, :k] ** 2, rel=1e-3, abs=1e-3)


def test_nearest_is_repeatable_to_the_last_bit():
    matrix = clustered(300, 16)
    first, second = nearest(matrix, 10), nearest(matrix, 10)
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


def test_every_step_is_reported_and_may_end_the_work(monkeypatch):
    monkeypatch.setattr(pairs, "TILE_ROWS", 10)
    monkeypatch.setattr(pairs, "NEAREST_ROWS", 10)
    matrix = clustered(35, 2)
    reports = []
    nearest(matrix, 2, on_step=lambda done, total: reports.append((done, total)))
    assert reports == [(done, 4) for done in range(1, 5)]
    reports.clear()
    list(tiles(matrix, on_step=lambda done, total: reports.append((done, total))))
    assert reports == [(done, 10) for done in range(1, 11)]

    def stop(done, total):
        raise TimeoutError

    with pytest.raises(TimeoutError):
        nearest(matrix, 2, on_step=stop)
