"""The part of a set that a question is about: all of it, or the rows that a filter chose.

Letters for shapes: N rows of the set, n chosen rows, D dimension.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import Unavailable
from serve_app.records import Neighbour, VectorArray
from serve_app.search.pairs import OnStep
from serve_app.search.set_file import SetFile, allocate

COPIED_ROWS = 4096

V = TypeVar("V", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a set, ascending; None stands for all of them, which are not copied. `folder` has room for a copy."""

    of: SetFile
    rows: NDArray[np.intp] | None
    folder: Path

    def __len__(self) -> int:
        return len(self.of.matrix) if self.rows is None else len(self.rows)

    def matrix(self, on_step: OnStep) -> VectorArray:
        """The (n, D) vectors: the set's own map, or a map of a file without a name, which goes with the array.

        The copy takes 4·n·D bytes of disk, and of memory only the kernel's cache. `on_step` is called after each
        4,096 rows.

        Raises:
            Unavailable: the disk is full or cannot be written.
        """
        if self.rows is None:
            return self.of.matrix
        shape = (len(self.rows), self.of.matrix.shape[1])
        if not shape[0]:
            return np.empty(shape, np.float32)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                allocate(file.fileno(), 4 * shape[0] * shape[1])
                copy: VectorArray = np.asarray(np.memmap(file, np.float32, "r+", shape=shape))
        except OSError as error:
            raise Unavailable(f"The chosen vectors cannot be kept in a file: {error.strerror}.") from error
        for start in range(0, shape[0], COPIED_ROWS):
            rows = self.rows[start : start + COPIED_ROWS]
            copy[start : start + len(rows)] = self.of.matrix[rows]
            on_step(start + len(rows), shape[0])
        return copy

    def chosen(self, values: NDArray[V]) -> NDArray[V]:
        """(n,) of the (N,) values that the set's rows have."""
        return values if self.rows is None else values[self.rows]

    def rows_at(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """The rows of the set at these places of the part."""
        return places if self.rows is None else self.rows[places]

    def contents(self) -> NDArray[np.int32]:
        """(n,) numbers that are equal where content hashes are equal."""
        return self.chosen(self.of.contents())

    def neighbours(self, places: Iterable[int], scores: Iterable[float]) -> list[Neighbour]:
        """The samples at these places of the part, with their scores."""
        return neighbours(self.of, self.rows_at(np.fromiter(places, np.intp)), scores)


def neighbours(found: SetFile, rows: Iterable[int], scores: Iterable[float]) -> list[Neighbour]:
    """The samples of these rows of a set, with their scores."""
    rows = [int(row) for row in rows]
    named = found.rows.select(["sample_id", "file_name", "label"]).take(pa.array(rows, pa.int64())).to_pylist()
    return [Neighbour(**name, score=float(score)) for name, score in zip(named, scores, strict=True)]
