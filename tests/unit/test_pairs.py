import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app import pairs
from serve_app.pairs import nearest, tiles

rows_of_integers = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 40), st.integers(1, 4)), elements=st.integers(-3, 3).map(float)
)


@pytest.fixture(params=[1, 7, 2048], ids=lambda rows: f"tiles of {rows}")
def tile_rows(request, monkeypatch):
    monkeypatch.setattr(pairs, "TILE_ROWS", request.param)


def clustered(n, dimension, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, dimension)) * 3
    return (centres[rng.integers(0, 5, n)] + rng.standard_normal((n, dimension))).astype(np.float32)


@pytest.mark.usefixtures("tile_rows")
def test_tiles_hold_every_pair_once():
    matrix = clustered(20, 3)
    seen = np.full((20, 20), np.nan)
    for rows, columns, tile in tiles(matrix):
        assert np.isnan(seen[rows, columns]).all()
        seen[rows, columns] = tile
    upper = np.triu_indices(20, 1)
    assert seen[upper] == pytest.approx((matrix @ matrix.T)[upper], rel=1e-5)
    assert (np.diag(seen) == -np.inf).all()


@pytest.mark.usefixtures("tile_rows")
def test_offsets_turn_products_into_distances():
    matrix = clustered(20, 3)
    half_squares = np.vecdot(matrix, matrix) / 2
    for rows, columns, tile in tiles(matrix, offsets=half_squares):
        distances = np.linalg.norm(matrix[rows, None] - matrix[None, columns], axis=2)
        others = np.isfinite(tile)
        assert tile[others] == pytest.approx(-(distances[others] ** 2) / 2, abs=1e-4)


def test_no_rows_have_no_tiles():
    assert list(tiles(np.empty((0, 3), dtype=np.float32))) == []


@given(rows_of_integers, st.data())
def test_nearest_finds_the_best_scores_among_many_ties(matrix, data):
    k = data.draw(st.integers(1, len(matrix) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TILE_ROWS", data.draw(st.sampled_from([1, 3, 8, 2048])))
        found = nearest(matrix, k)
    scores = matrix @ matrix.T  # of small integers: exact, so that ties are ties
    np.fill_diagonal(scores, -np.inf)
    assert (found.scores == -np.sort(-scores, axis=1)[:, :k]).all()
    assert (np.take_along_axis(scores, found.rows, axis=1) == found.scores).all()
    assert all(len(set(row)) == k for row in found.rows.tolist())


@pytest.mark.usefixtures("tile_rows")
@pytest.mark.parametrize("k", [1, 9, 59], ids=lambda k: f"k={k}")
def test_nearest_agrees_with_brute_force(k):
    matrix = clustered(60, 8)
    found = nearest(matrix, k)
    scores = matrix @ matrix.T
    np.fill_diagonal(scores, -np.inf)
    assert found.scores == pytest.approx(-np.sort(-scores, axis=1)[:, :k], rel=1e-5, abs=1e-4)
    assert np.take_along_axis(scores, found.rows, axis=1) == pytest.approx(found.scores, rel=1e-5, abs=1e-4)


@pytest.mark.usefixtures("tile_rows")
def test_neighbours_that_improve_tile_by_tile_are_all_found():
    """Every tile beats all before it, for every row: no place is ever safe."""
    matrix = np.stack([np.arange(1, 61), np.ones(60)], axis=1).astype(np.float32)
    assert nearest(matrix, 3).rows[:-3].tolist() == [[59, 58, 57]] * 57


def test_nearest_is_repeatable_to_the_last_bit():
    matrix = clustered(300, 16)
    first, second = nearest(matrix, 10), nearest(matrix, 10)
    assert (first.rows == second.rows).all()
    assert (first.scores == second.scores).all()


def test_every_tile_is_reported_and_may_end_the_work(monkeypatch):
    monkeypatch.setattr(pairs, "TILE_ROWS", 10)
    reports = []
    nearest(clustered(35, 2), 2, on_tile=lambda done, total: reports.append((done, total)))
    assert reports == [(done, 10) for done in range(1, 11)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nearest(clustered(35, 2), 2, on_tile=stop)
