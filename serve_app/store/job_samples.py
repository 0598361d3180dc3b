"""Which samples the rows of a running job belong to, found in memory.

A block names its samples by their ids or files. To find these by SQL alone, DuckDB reads the names of all samples of
the dataset and of all staged rows, for each block. The index has a hash of each name instead, so that a block reads
a range of samples, which is short where the rows come in the order of the dataset.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from serve_app.store.job_rows import JobRow
from serve_app.store.schema import BASE_DIMENSION
from serve_app.store.session import Session
from serve_app.store.staging import unsettled_condition, unstaged_condition

PAGE_ROWS = 100_000
MAX_BYTES = 2**28
"""Indexes of all jobs together; one is kept at any size. A sample takes 13 bytes."""


class Match(NamedTuple):
    """A sample that a key names, and whether the job has settled it."""

    key: str
    sample_id: str
    file_name: str
    ordinal: int
    is_settled: bool


class SampleIndex:
    """The samples of a job's dataset by the hash of one of their names. Only the writer thread uses it.

    Attributes:
        is_settled: (N,) bool by ordinal; whoever settles samples says so here.
        state: what the job's row was when this was true.
    """

    def __init__(self, key_column: str, row: JobRow, hashes: NDArray[np.uint64], is_settled: NDArray[np.bool_]) -> None:
        order = np.argsort(hashes, kind="stable").astype(np.int32)
        self.key_column = key_column
        self.is_settled = is_settled
        self.state = _state(row)
        self._dataset_id = row.dataset_id
        self._ordinals, self._hashes = order, hashes[order]

    @classmethod
    def read(cls, session: Session, row: JobRow, key_column: str) -> "SampleIndex":
        """Read the index in pages; `key_column` is "sample_id" or "file_name"."""
        count = session.value("SELECT sample_count FROM datasets WHERE id = ?", row.dataset_id)
        hashes, is_settled = np.zeros(count, np.uint64), np.ones(count, bool)
        dimension = row.dimension or BASE_DIMENSION  # before `Jobs.begin`, no table has rows of the job
        # A sample of which an import skipped a row may get its vector from a later one.
        is_import = row.kind == "import"
        pending = unstaged_condition(dimension) if is_import else unsettled_condition(dimension)
        ids = (row.id,) if is_import else (row.id, row.id)
        for after in range(-1, count - 1, PAGE_ROWS):
            within = "s.dataset_id = ? AND s.ordinal > ? AND s.ordinal <= ?"
            bounds = (row.dataset_id, after, after + PAGE_ROWS)
            page = session.arrow(
                f"SELECT s.ordinal, hash(s.{key_column}) AS hash FROM samples s WHERE {within}", *bounds
            )
            ordinals = page.column("ordinal").to_numpy()
            hashes[ordinals] = page.column("hash").to_numpy()
            if row.processed:
                sql = f"SELECT s.ordinal FROM samples s WHERE {within} AND {pending}"
                ordinals = session.arrow(sql, *bounds, *ids).column("ordinal").to_numpy()
            is_settled[ordinals] = False
        return cls(key_column, row, hashes, is_settled)

    @property
    def n_bytes(self) -> int:
        """The memory that the arrays take."""
        return self._hashes.nbytes + self._ordinals.nbytes + self.is_settled.nbytes

    def find(self, session: Session, keys: Collection[str]) -> list[Match]:
        """The samples that these keys name, in the order of the dataset."""
        session.bind("keys", pa.table({"key": pa.array(sorted(set(keys)), pa.string())}))
        hashes = session.arrow("SELECT hash(key) AS hash FROM keys").column("hash").to_numpy()
        first, end = (np.searchsorted(self._hashes, hashes, side) for side in ("left", "right"))
        spans = [self._ordinals[start:stop] for start, stop in zip(first, end, strict=True) if start < stop]
        if not spans:
            return []
        candidates = np.concatenate(spans)
        rows: list[tuple[str, str, str, int]] = session.q(
            "SELECT n.key, s.sample_id, s.file_name, s.ordinal FROM samples s "
            f"JOIN keys n ON n.key = s.{self.key_column} "
            "WHERE s.dataset_id = ? AND s.ordinal BETWEEN ? AND ? ORDER BY s.ordinal",
            *(self._dataset_id, int(candidates.min()), int(candidates.max())),
        )
        return [Match(*values, bool(self.is_settled[values[-1]])) for values in rows]

    def settle(self, matches: Collection[Match]) -> None:
        """Note that these samples are settled."""
        self.is_settled[[match.ordinal for match in matches]] = True


class Borrowed:
    """The index of one job for the time of one transaction."""

    def __init__(self, found: SampleIndex | None) -> None:
        self._found = found
        self._is_in_doubt = False

    def index(self, session: Session, row: JobRow, key_column: str = "sample_id") -> SampleIndex:
        """The index of the job, read anew if there is none that is true of this row; give it back with `keep`."""
        found = self._found
        if found is None or (found.state, found.key_column) != (_state(row), key_column):
            self._found = found = SampleIndex.read(session, row, key_column)
        self._is_in_doubt = True
        return found

    def keep(self, row: JobRow) -> None:
        """Say that `index` is true of the row that the transaction writes."""
        assert self._found is not None
        self._found.state = _state(row)
        self._is_in_doubt = False

    def kept(self) -> SampleIndex | None:
        """The index, unless it was used and not given back."""
        return None if self._is_in_doubt else self._found


class JobSamples:
    """The indexes of jobs, the latest used last. Only the writer thread uses them.

    That of a job which failed or was cancelled stays until others need its room.
    """

    def __init__(self) -> None:
        self._indexes: dict[str, SampleIndex] = {}

    @contextmanager
    def of(self, job_id: str) -> Iterator[Borrowed]:
        """The index of a job around a transaction; after an error nobody knows what is on disk, so it is dropped."""
        borrowed = Borrowed(self._indexes.pop(job_id, None))
        yield borrowed
        kept = borrowed.kept()
        if kept is not None:
            self._indexes[job_id] = kept
            while len(self._indexes) > 1 and sum(index.n_bytes for index in self._indexes.values()) > MAX_BYTES:
                del self._indexes[next(iter(self._indexes))]

    def drop(self, job_id: str) -> None:
        """Forget the index of a job that is over."""
        self._indexes.pop(job_id, None)


def _state(row: JobRow) -> tuple[object, ...]:
    """What changes with every change of a job's settled samples."""
    return row.id, row.attempt, row.last_block, row.embedded, row.reused, row.skipped, row.dimension, row.scan_no
