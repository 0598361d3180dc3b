"""Where the vectors of a set lie, kept for the next page: to find them, DuckDB reads the names of the whole set."""

import threading

import pyarrow as pa
import pyarrow.compute as pc

from serve_app.store import readout
from serve_app.store.read_cache import ReadCache
from serve_app.store.session import Session
from serve_app.store.sets import Current

BLOCK_ROWS = 50_000
"""Samples whose places are found at a time; they take some 5 MB."""
MAX_BLOCKS = 4

_Key = tuple[str, int, int]
"""The set's version, the number of the block, and what `ReadCache.quiet` said."""


class KeptPlaces:
    """The latest blocks; the class is thread-safe.

    A checkpoint moves rows, and a session may see an older state than the one beside it. So a block serves only
    sessions that see the state it was read from, which is so while nothing is written.
    """

    def __init__(self, answers: ReadCache) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._kept: dict[_Key, pa.Table] = {}

    def of(self, session: Session, now: Current, after: int, limit: int, quiet: int | None) -> pa.Table:
        """What `readout.places` gives; `quiet` is what `ReadCache.quiet` said before the session began."""
        if quiet is None:  # nothing can be kept, so more than the page would be read in vain
            return readout.places(session, now, after, limit)
        first, last = (after + 1) // BLOCK_ROWS, min(after + limit, now.sample_count - 1) // BLOCK_ROWS
        numbers = range(first, max(first, last) + 1)
        found = pa.concat_tables([self._block(session, now, number, quiet) for number in numbers])
        ordinal = found.column("ordinal")
        return found.filter(pc.and_(pc.greater(ordinal, after), pc.less_equal(ordinal, after + limit)))

    def _block(self, session: Session, now: Current, number: int, quiet: int) -> pa.Table:
        key = (now.public.version, number, quiet)
        with self._lock:
            found = self._kept.get(key)
        if found is not None and self._answers.quiet() == quiet:
            return found
        found = readout.places(session, now, number * BLOCK_ROWS - 1, BLOCK_ROWS)
        if self._answers.quiet() == quiet:
            with self._lock:
                for old in [old for old in self._kept if old[2] != quiet]:
                    del self._kept[old]
                self._kept[key] = found
                while len(self._kept) > MAX_BLOCKS:
                    del self._kept[next(iter(self._kept))]
        return found
