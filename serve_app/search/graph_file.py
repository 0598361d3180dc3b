"""The neighbour graph of one version of a dataset's vectors, as files in the folder of that version.

A folder `graph-<k>` holds `neighbours`, (N, k) int32 rows of the set, and `similarities`, (N, k) float32 cosines, both
in row-major order, best first and without the row itself. `graph.json` has their shape and checksums. The folder goes
with its set. A draft keeps the rows that were done when its process ended, so that the next process goes on after them.
"""

import fcntl
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from serve_app.search.set_file import allocate, checksum

DEFAULT_K = 15
"""Enough for a map, whose default is 14 beside the image itself, and for outliers."""
MAX_K = 100
"""The most neighbours of a graph; each takes 8 bytes a row."""

NEIGHBOURS = "neighbours"
SIMILARITIES = "similarities"
ABOUT = "graph.json"
DONE = "done"
PREFIX = "graph-"
PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class GraphFile:
    """A mapped graph; row i names the neighbours of row i of the set. The memory it takes is the kernel's cache."""

    folder: Path
    neighbours: NDArray[np.int32]
    similarities: NDArray[np.float32]

    @property
    def k(self) -> int:
        """The number of neighbours of each row."""
        return int(self.neighbours.shape[1])

    @classmethod
    def open(cls, folder: Path) -> "GraphFile | None":
        """Map a graph and compare it with its checksums; None where the files are missing or damaged."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            if about["checksums"] != {name: checksum(folder / name) for name in (NEIGHBOURS, SIMILARITIES)}:
                return None
            shape = (about["rows"], about["k"])
            return cls(
                folder, _mapped(folder / NEIGHBOURS, np.int32, shape), _mapped(folder / SIMILARITIES, np.float32, shape)
            )
        except (OSError, ValueError, LookupError, TypeError):
            return None


def graphs_in(set_folder: Path) -> list[Path]:
    """The folders of the finished graphs of a set, the one with the most neighbours first."""
    found = [path for path in set_folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdecimal()]
    return sorted(found, key=lambda path: -int(path.name.removeprefix(PREFIX)))


def largest_graph(set_folder: Path) -> GraphFile | None:
    """The sound graph of a set with the most neighbours; damaged ones are removed."""
    for folder in graphs_in(set_folder):
        if (graph := GraphFile.open(folder)) is not None:
            return graph
        shutil.rmtree(folder, ignore_errors=True)
    return None


class GraphDraft:
    """A graph that is being made, by one process at a time: another one waits until this one has let go.

    Args:
        set_folder: the folder of the set.
        shape: (N, k).

    Raises:
        FileNotFoundError: the set is gone.
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, set_folder: Path, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._folder = set_folder / f"{PREFIX}{shape[1]}{PARTIAL}"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = (self._folder / NEIGHBOURS).open("ab+")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def start(self) -> int:
        """Make room, and return how many rows an earlier process has done."""
        for name in (NEIGHBOURS, SIMILARITIES):
            with (self._folder / name).open("ab+") as file:
                allocate(file.fileno(), 4 * self.shape[0] * self.shape[1])
        self._neighbours = _mapped(self._folder / NEIGHBOURS, np.int32, self.shape, mode="r+")
        self._similarities = _mapped(self._folder / SIMILARITIES, np.float32, self.shape, mode="r+")
        try:
            return min(int((self._folder / DONE).read_text()), self.shape[0])
        except (OSError, ValueError):
            return 0

    def put(self, start: int, neighbours: NDArray[np.int32], similarities: NDArray[np.float32]) -> int:
        """Write the neighbours of the next rows, and return how many rows are done."""
        stop = start + len(neighbours)
        self._neighbours[start:stop], self._similarities[start:stop] = neighbours, similarities
        for array in (self._neighbours, self._similarities):
            if isinstance(array, np.memmap):
                array.flush()  # before the count, so that a count never outlives its rows in a loss of power
        (self._folder / DONE).write_text(str(stop))
        return stop

    def publish(self) -> None:
        """Give the folder its name, and remove graphs of fewer neighbours."""
        about = {
            "rows": self.shape[0],
            "k": self.shape[1],
            "checksums": {name: checksum(self._folder / name) for name in (NEIGHBOURS, SIMILARITIES)},
        }
        (self._folder / ABOUT).write_text(json.dumps(about))
        (self._folder / DONE).unlink(missing_ok=True)
        self._folder.rename(self._folder.with_name(f"{PREFIX}{self.shape[1]}"))
        for folder in graphs_in(self._folder.parent)[1:]:
            shutil.rmtree(folder, ignore_errors=True)


def _mapped(path: Path, kind: type[np.generic], shape: tuple[int, int], *, mode: str = "c") -> NDArray[Any]:
    """The file as an (N, k) array. Raises `ValueError` when it has another size."""
    if path.stat().st_size != 4 * shape[0] * shape[1]:
        raise ValueError("the file has another size")
    if not shape[0] * shape[1]:
        return np.empty(shape, kind)  # an empty file cannot be mapped
    return np.memmap(path, kind, mode, shape=shape)  # type: ignore[call-overload,no-any-return]
