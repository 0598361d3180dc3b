"""Regions of a map: which samples lie inside a polygon.

P is the number of points of a map, V the number of corners of a polygon.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import NoEmbeddings
from serve_app.store import sets
from serve_app.store.session import Session

Polygon = Sequence[tuple[float, float]]

_POINTS_AT_ONCE = 100_000


def enclosed(session: Session, dataset_id: str, polygon: Polygon, model: str | None = None) -> pa.Table:
    """The `sample_id` of each sample whose point lies inside a polygon, in the coordinates of a set's map.

    The set is that of `model`, or the one made last.

    Raises:
        NoEmbeddings: there is no such set, or it has no map.
    """
    current = sets.require(session, dataset_id, model)
    if not current.placed_count:
        raise NoEmbeddings("The dataset has no map. Reduce its embeddings first.")
    corners = np.asarray(polygon, np.float64)
    (left, low), (right, high) = corners.min(axis=0), corners.max(axis=0)
    near = session.arrow(
        "SELECT sample_id, x, y FROM points WHERE job_id = ? AND x BETWEEN ? AND ? AND y BETWEEN ? AND ?",
        *(current.map_job_id, float(left), float(right), float(low), float(high)),
    )
    points = np.stack([near.column(axis).to_numpy() for axis in ("x", "y")], axis=1)
    return near.select(["sample_id"]).filter(pa.array(inside(points, corners)))


def inside(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of (P, 2) points lie in a polygon of (V, 2) corners, by the even-odd rule; the last corner joins the first.

    Points on a left or lower edge are in, points on a right or upper edge are not.
    """
    found = np.zeros(len(points), bool)
    for start in range(0, len(points), _POINTS_AT_ONCE):
        part = slice(start, start + _POINTS_AT_ONCE)
        x, y = points[part, 0], points[part, 1]
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            crosses = (y1 > y) != (y2 > y)
            found[part][crosses] ^= x[crosses] < (y[crosses] - y1) / (y2 - y1) * (x2 - x1) + x1
    return found
