"""One version of a dataset's vectors as files of this machine: written once, and then mapped into memory.

A folder holds `matrix`, (N, D) float32 in row-major order with rows of length one, in sample order, and `rows.arrow`,
an uncompressed Arrow IPC file with a row for each of the matrix: sample_id, file_name, label, content_hash, the
`length` that the vector had, and the `ordinal` of the sample. A large set has `codes`, (N, D) int8, and in the table
their `scale` and `error`. `set.json` says which version this is and has the checksums of all. A folder gets its name
when it is complete, and nobody changes it afterwards.
"""

import fcntl
import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.errors import Conflict
from serve_app.records import VectorArray, VectorSet
from serve_app.search.codes import Codes
from serve_app.search.similarity import scaled

MATRIX = "matrix"
ROWS = "rows.arrow"
CODES = "codes"
ABOUT = "set.json"
MIN_CODED_NUMBERS = 2**23
"""N·D from which a set gets codes: below, comparing the vectors themselves takes two milliseconds."""
_CHECK_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class SetFile:
    """A mapped set; row i of the matrix belongs to row i of the table. The memory it takes is the kernel's cache."""

    folder: Path
    version: str
    job_id: str
    space_key: str
    matrix: VectorArray
    rows: pa.Table
    codes: Codes | None = None

    @classmethod
    def open(cls, folder: Path, *, is_new: bool = False) -> "SetFile | None":
        """Map a set and compare it with its checksums unless it `is_new`; None where files are missing or damaged."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            checksums = about.pop("checksums")
            if not is_new and checksums != {name: checksum(folder / name) for name in checksums}:
                return None
            rows = pa.ipc.open_file(pa.memory_map(str(folder / ROWS))).read_all()
            rows.column("ordinal")  # files of older releases lack it
            matrix = _mapped(folder / MATRIX, (rows.num_rows, about.pop("dimension")))
            return cls(folder=folder, matrix=matrix, rows=rows, codes=_codes(folder, rows, matrix.shape), **about)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException):
            return None

    def row_of(self, sample_id: str) -> int | None:
        """The row of a sample; None where it has no vector."""
        row = pa.compute.index(self.rows.column("sample_id"), sample_id).as_py()
        return None if row < 0 else int(row)

    def rows_in(self, bits: bytes) -> NDArray[np.intp]:
        """The rows whose samples have a bit, ascending; `bits` is an answer of `Vectors.matching`."""
        is_chosen = np.unpackbits(np.frombuffer(bits, np.uint8)).view(bool)
        return np.flatnonzero(is_chosen[self.rows.column("ordinal").to_numpy()])

    def contents(self) -> NDArray[np.int32]:
        """(N,) numbers that are equal where content hashes are equal."""
        hashes = self.rows.column("content_hash").combine_chunks()
        contents: NDArray[np.int32] = hashes.dictionary_encode().indices.to_numpy()
        return contents

    @property
    def lengths(self) -> NDArray[np.float32]:
        """(N,) lengths that the vectors had before each was divided by its own."""
        lengths: NDArray[np.float32] = self.rows.column("length").to_numpy()
        return lengths


class Draft:
    """A set that is being written, in a folder of its own; `names`, then `start`, `put` and `finish`, in this order.

    Raises:
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, folder: Path, described: VectorSet) -> None:
        self._folder = folder
        self._described = described
        self._names: list[pa.Table] = []
        self._hashes: list[pa.ChunkedArray] = []
        self._order: list[NDArray[np.int64]] = []
        self._codes: Codes | None = None
        folder.mkdir(mode=0o700, parents=True)
        self._file = (folder / MATRIX).open("wb+")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # tells `is_abandoned` that somebody is at work

    def names(self, page: bytes) -> None:
        """Add a page of `Vectors.names`."""
        self._names.append(pa.ipc.open_stream(page).read_all())

    def start(self) -> None:
        """Make room for a row a sample."""
        self._samples = pa.concat_tables(self._names).combine_chunks()
        self._row_of = {name: row for row, name in enumerate(self._samples.column("sample_id").to_pylist())}
        shape = (self._samples.num_rows, self._described.dimension)
        allocate(self._file.fileno(), 4 * shape[0] * shape[1])
        self._matrix = _mapped(self._folder / MATRIX, shape, mode="r+")
        self._lengths = np.zeros(shape[0], np.float32)
        if shape[0] * shape[1] >= MIN_CODED_NUMBERS:
            with (self._folder / CODES).open("wb+") as file:
                allocate(file.fileno(), shape[0] * shape[1])
                self._codes = Codes.empty(np.asarray(np.memmap(file, np.int8, "r+", shape=shape)))

    def put(self, page: bytes) -> None:
        """Add a page of `Vectors.rows`; vectors of samples that are no longer there are left out."""
        table = pa.ipc.open_stream(page).read_all()
        rows = np.array([self._row_of.get(name, -1) for name in table.column("sample_id").to_pylist()], np.int64)
        vectors = table.column("vector").combine_chunks().flatten().to_numpy().reshape(-1, self._described.dimension)
        present = np.flatnonzero(rows >= 0)
        hashes = table.column("content_hash").take(pa.array(present))  # a copy: a slice would keep the whole page
        if len(present) < len(rows):
            rows, vectors = rows[present], vectors[present]
        unit, self._lengths[rows] = scaled(vectors)
        self._matrix[rows] = unit
        if self._codes is not None:  # now, while the rows are in the processor's cache
            self._codes.put(rows, unit)
        self._hashes.append(hashes)
        self._order.append(rows)

    def finish(self) -> None:
        """Close the gaps of samples without a vector, and write the table.

        Raises:
            Conflict: a vector is missing or came twice, because rows moved while they were read.
        """
        order = np.concatenate([np.empty(0, np.int64), *self._order])
        kept = np.unique(order)
        if not len(kept) == len(order) == self._described.count:
            raise Conflict("The vectors were moved while they were read; ask again.")
        _close_gaps(self._matrix, kept)
        self._file.truncate(4 * len(kept) * self._described.dimension)
        hashes = pa.chunked_array(self._hashes, pa.string()).take(pa.array(np.argsort(order)))
        table = self._samples.take(pa.array(kept)).append_column("content_hash", hashes)
        table = table.append_column("length", pa.array(self._lengths[kept]))
        table = table.append_column("ordinal", pa.array(kept, pa.int32()))  # ordinals have no gaps
        for name, numbers in self._coded(kept).items():
            table = table.append_column(name, pa.array(numbers))
        table = table.combine_chunks()
        with pa.OSFile(str(self._folder / ROWS), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        about = {
            "version": self._described.version,
            "job_id": self._described.job_id,
            "space_key": self._described.space_key,
            "dimension": self._described.dimension,
            "checksums": {path.name: checksum(path) for path in self._folder.iterdir()},
        }
        (self._folder / ABOUT).write_text(json.dumps(about))

    def _coded(self, kept: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Close the gaps of the codes; returns the columns that belong to them, none for a small set."""
        if self._codes is None:
            return {}
        if len(kept) * self._described.dimension < MIN_CODED_NUMBERS:
            (self._folder / CODES).unlink()
            return {}
        _close_gaps(self._codes.numbers, kept)
        os.truncate(self._folder / CODES, len(kept) * self._described.dimension)
        return {"scale": self._codes.scales[kept], "error": self._codes.errors[kept]}

    def publish(self, folder: Path) -> None:
        """Give the folder its name; where another process was first, its equal work is kept."""
        try:
            self._folder.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        self.close()

    def close(self) -> None:
        """Let go of the files, and delete them unless they were published."""
        self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    """Whether the process that wrote this draft has died."""
    try:
        with (folder / MATRIX).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _mapped(path: Path, shape: tuple[int, int], *, mode: str = "c") -> VectorArray:
    """The file as an (N, D) array. Copies on write by default, since umap's compiled code takes no read-only arrays.

    Raises:
        ValueError: the file has another size.
    """
    if mode == "c" and path.stat().st_size != 4 * shape[0] * shape[1]:
        raise ValueError("the file has another size")
    if not shape[0]:
        return np.empty(shape, np.float32)  # an empty file cannot be mapped
    return np.asarray(np.memmap(path, np.float32, mode, shape=shape))  # type: ignore[call-overload]


def _codes(folder: Path, rows: pa.Table, shape: tuple[int, int]) -> Codes | None:
    """The codes of a set; None where it is small, or was written by an older release."""
    if "scale" not in rows.column_names:
        return None
    numbers = np.asarray(np.memmap(folder / CODES, np.int8, "r", shape=shape))
    return Codes(numbers, rows.column("scale").to_numpy(), rows.column("error").to_numpy())


def allocate(file: int, n_bytes: int) -> None:
    """Give a file its size and, where the system can, its blocks: writing to a map of a full disk ends the process."""
    if n_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)
    else:
        os.ftruncate(file, n_bytes)


def _close_gaps(matrix: NDArray[np.generic], kept: NDArray[np.int64]) -> None:
    """Move the kept rows to the front, in order."""
    if len(kept) == len(matrix):
        return
    for start in range(0, len(kept), 4096):
        rows = kept[start : start + 4096]
        matrix[start : start + len(rows)] = matrix[rows]


def checksum(path: Path) -> int:
    """The CRC-32 of a file; it takes about a second for a gigabyte, in which other threads go on. Raises `OSError`."""
    value = 0
    with path.open("rb") as file:
        while data := file.read(_CHECK_BYTES):
            value = zlib.crc32(data, value)
    return value
