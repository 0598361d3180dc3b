"""What people read of DuckDB's exceptions."""

import duckdb
import pytest

from serve_app.store.failures import reason


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Could not set lock on file: Conflicting lock is held in python (PID 42)", "(pid 42)"),
        ("Could not set lock on file: Conflicting lock is held", "(unknown pid)"),
        ("Failed to commit: Could not write file: No space left on device", "disk is full"),
        ("Cannot open file: Permission denied", "permission"),
        ("Cannot open file: Read-only file system", "read-only"),
        ("fsync failed!", "failed to store"),
        ("something /secret/path SELECT 1", "DuckDB reports IOException"),
    ],
)
def test_reasons_are_for_people(message, words):
    assert words in reason(duckdb.IOException(message))
    assert "/secret" not in reason(duckdb.IOException(message))
