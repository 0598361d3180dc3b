"""Which points of a dataset's last map stay, or why the map is drawn anew."""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.projection.reduction import Projection
from serve_app.records import Claim, LastMap, MapMade
from serve_app.search.set_file import SetFile
from serve_app.services import Writer
from serve_app.store.maps import Maps

PAGE_ROWS = 50_000

MAX_NEW = 0.5
"""If a larger share of the images came after the map was fitted, it no longer shows how they are arranged."""


@dataclass(frozen=True, slots=True)
class LastPoints:
    """(N, 2) points that stay, NaN for new images, and how their map was made; None where the map is drawn anew.

    `why` says why an existing map is drawn anew.
    """

    kept: NDArray[np.float64] | None = None
    made: MapMade | None = None
    why: str = ""


async def last_points(
    claim: Claim, writer: Writer, found: SetFile, projection: Projection, contents: NDArray[np.uint64]
) -> LastPoints:
    """Decide what a reduce job does with the last map.

    Args:
        claim: the job; `redraw` of its `params` asks for a new map.
        writer: the store.
        found: the present vectors.
        projection: the parameters of the map that is wanted.
        contents: (N,) numbers of the vectors' contents.

    Raises:
        Conflict: the vectors were replaced or the dataset rescanned meanwhile.
    """
    dataset_id = claim.dataset.id
    last = await writer.ask(Maps.last, dataset_id, version=found.version)
    if last is None:
        return LastPoints()
    if claim.params.get("redraw"):
        return LastPoints(why="as asked")
    if last.made is None:
        return LastPoints(why="nothing is known of how the old one was made")
    if any(last.params.get(name) != value for name, value in projection.model_dump().items()):
        return LastPoints(why="other parameters than those of the old one")
    kept = _points_of(contents, await _pages(writer, dataset_id, found.version, last))
    n_new = int(np.isnan(kept[:, 0]).sum())
    if last.made.placed + n_new > MAX_NEW * len(kept):
        return LastPoints(why="most images came after the old one was fitted")
    return LastPoints(kept, last.made)


async def _pages(writer: Writer, dataset_id: str, version: str, last: LastMap) -> pa.Table:
    parts = max(1, -(-last.count // PAGE_ROWS))
    pages = [
        await writer.ask(Maps.points, dataset_id, version=version, part=part, parts=parts) for part in range(parts)
    ]
    return pa.concat_tables([pa.ipc.open_stream(io.BytesIO(page)).read_all() for page in pages])


def _points_of(contents: NDArray[np.uint64], points: pa.Table) -> NDArray[np.float64]:
    """(N, 2) points of the contents, NaN for those that are not in the table."""
    known, first = np.unique(points.column("content").to_numpy(), return_index=True)
    axes = np.stack([points.column(axis).to_numpy()[first] for axis in ("x", "y")], axis=1)
    found = np.full((len(contents), 2), np.nan)
    if len(known):
        places = np.minimum(np.searchsorted(known, contents), len(known) - 1)
        is_known = known[places] == contents
        found[is_known] = axes[places[is_known]]
    return found
