"""Whether the disk can take a set of vectors, asked before anything is computed for it."""

import shutil
from pathlib import Path

from serve_app.errors import DiskFull
from serve_app.store.session import Session

COPIES = 2.5
"""A set lies on the disk staged and swapped in at once, and partly in the write-ahead log; measured 2.0 to 2.4."""
ROW_BYTES = 128
"""Names and stamps of a row, beside four bytes for each component of its vector."""


def require_space_for(session: Session, folder: Path, rows: int, dimension: int) -> None:
    """Compare what `rows` further vectors need with the disk's free space and what the file has free in itself.

    Raises:
        DiskFull: there is not enough.
    """
    needed = int(COPIES * rows * (4 * dimension + ROW_BYTES))
    within = session.value("SELECT free_blocks * block_size FROM pragma_database_size()")
    free = shutil.disk_usage(folder).free + int(within)
    if free < needed:
        raise DiskFull(
            f"{rows:,} vectors need about {_megabytes(needed)} on the disk of the database while they are made, and "
            f"{_megabytes(free)} are free. Make room and start again. Earlier embeddings are kept"
        )


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"
