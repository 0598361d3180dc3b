"""Making the file: under another name until it is whole, so that whoever dies in between leaves nothing to trip over.

DuckDB refuses a file that holds less than its headers, and must: it cannot tell an unfinished file from a damaged one.
"""

import os
from pathlib import Path
from typing import Any

import duckdb

from serve_app.store import schema
from serve_app.store.session import Session


def create(path: Path, config: dict[str, Any]) -> None:
    """Make an empty database with all tables, readable by its owner alone, and on the disk when this returns.

    Raises:
        duckdb.Error, OSError: it could not be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    _remove(unfinished)
    root = duckdb.connect(str(unfinished), config=config)
    try:
        unfinished.chmod(0o600)
        session = Session(root)
        session.q("BEGIN TRANSACTION")
        schema.apply_migrations(session, list(schema.MIGRATIONS))
        session.q("COMMIT")
        session.q("CHECKPOINT")
        # DuckDB still holds the lock of the unfinished file: of several processes one gets here.
        if not path.exists():
            unfinished.rename(path)
            _force(path.parent)
    finally:
        root.close()
        _remove(unfinished)


def _remove(unfinished: Path) -> None:
    for path in (unfinished, unfinished.with_name(unfinished.name + ".wal")):
        path.unlink(missing_ok=True)


def _force(folder: Path) -> None:
    """Put a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
