"""Says which of several near-duplicates is the most welcome, and why another one is dropped."""

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from serve_app.search.finding_records import Keep, Twin
from serve_app.search.part import Part
from serve_app.search.set_values import Files
from serve_app.search.twins import Kept

WELCOME = {"largest": "the largest", "oldest": "the oldest", "first": "the first by name"}


class Wishes:
    """The order in which a part's n samples are welcome: `order` has their places, the most welcome first.

    largest: most pixels, then most bytes; oldest: earliest time of the file. Ties, and `first`, go by file name.
    """

    def __init__(self, part: Part, files: Files, keep: Keep) -> None:
        rows = slice(None) if part.rows is None else part.rows
        self._part = part
        self._keep = keep
        self._files = Files(files.pixels[rows], files.bytes[rows], files.times[rows])
        names = part.of.rows.column("file_name")
        by_name = np.empty(len(names), np.int64)
        by_name[pc.sort_indices(names).to_numpy()] = np.arange(len(names))
        self.order: NDArray[np.intp] = np.lexsort((by_name[rows], *self._keys()))

    def explained(self, group: list[int], found: Kept) -> list[Twin]:
        """The samples of a group, the kept one first, with what to do and why."""
        kept, *dropped = group
        scores = found.scores[dropped]
        named = self._part.neighbours(group, [float(scores.max()), *scores.tolist()])
        reasons = [f"{WELCOME[self._keep]} of {len(group)}"]
        reasons += [
            f"{score:.3f} like {named[0].file_name}, {self._why(kept, row)}"
            for row, score in zip(dropped, scores, strict=True)
        ]
        return [
            Twin(sample.sample_id, sample.file_name, sample.label, sample.score, "drop" if place else "keep", reason)
            for place, (sample, reason) in enumerate(zip(named, reasons, strict=True))
        ]

    def _keys(self) -> tuple[NDArray[np.number], ...]:
        """Sort keys, the most important last."""
        if self._keep == "largest":
            return -self._files.bytes, -self._files.pixels
        return (self._files.times,) if self._keep == "oldest" else ()

    def _why(self, kept: int, dropped: int) -> str:
        """What is better about the kept one."""
        pixels, n_bytes, times = self._files
        if self._keep == "largest" and pixels[kept] > pixels[dropped]:
            return "which has more pixels" if pixels[dropped] else "whose pixels are known"
        if self._keep == "largest" and n_bytes[kept] > n_bytes[dropped]:
            return "which has more bytes"
        if self._keep == "oldest" and times[kept] < times[dropped]:
            return "which is older"
        return "which comes first by name"
