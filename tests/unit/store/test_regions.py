"""The region of a map: which points lie in a polygon."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serve_app.store.regions import inside

coordinates = st.floats(-10, 10).map(lambda number: round(number, 3))


@given(st.lists(st.tuples(coordinates, coordinates), max_size=30), coordinates, coordinates)
def test_a_rectangle_holds_the_points_between_its_sides(points, width, height):
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    array = np.array(points, float).reshape(-1, 2)
    (left, low), (right, high) = corners.min(axis=0), corners.max(axis=0)
    expected = [left <= x < right and low <= y < high for x, y in points]
    assert inside(array, corners).tolist() == expected


def test_a_hole_that_the_line_leaves_is_outside():
    star = np.array([[0, 3], [2, -3], [-3, 1], [3, 1], [-2, -3]], float)
    assert inside(np.array([[0.0, 0.0], [0.0, 2.0], [5.0, 0.0]]), star).tolist() == [False, True, False]
