"""Says which of several near-duplicates is the most welcome, and why another one is dropped."""

from collections.abc import Sequence
from itertools import chain, islice

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from serve_app.records import Neighbour
from serve_app.search.finding_records import Keep, Twin
from serve_app.search.pairs import OnStep
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

    def explained(self, found: Kept, on_step: OnStep) -> list[list[Twin]]:
        """The samples of each group, the kept one first, with what to do and why; `on_step` is called after each."""
        groups = found.groups(self.order)
        scores = [score for group in groups for score in (found.scores[group[1:]].max(), *found.scores[group[1:]])]
        named = iter(self._part.neighbours(chain.from_iterable(groups), scores))  # of all: a take costs a millisecond
        explained = []
        for done, group in enumerate(groups, start=1):
            explained.append(self._explained(group, list(islice(named, len(group)))))
            on_step(done, len(groups))
        return explained

    def _explained(self, group: Sequence[int], named: Sequence[Neighbour]) -> list[Twin]:
        kept, *dropped = group
        reasons = [f"{WELCOME[self._keep]} of {len(group)}"]
        reasons += [
            f"{sample.score:.3f} like {named[0].file_name}, {self._why(kept, row)}"
            for row, sample in zip(dropped, named[1:], strict=True)
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
