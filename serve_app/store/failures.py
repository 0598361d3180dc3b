"""Translates DuckDB's exceptions into reasons that people understand, without paths or SQL."""

import re

import duckdb

_LOCK_HOLDER = re.compile(r"PID (\d+)")

_REASONS: tuple[tuple[str, str], ...] = (
    ("not a valid DuckDB database file", "the file is not a DuckDB database; it was left as it is"),
    (
        "WAL file",
        "its write-ahead log (the file ending in .wal) is corrupt: restore a backup, or move the log aside knowing "
        "that the changes recorded only in it are lost",
    ),
    ("checksum", "the file is corrupt: restore a backup"),
    ("version number", "the file was written by another version of DuckDB"),
    ("No space left", "the disk is full"),
    ("Disk quota", "the disk quota is used up"),
    ("File too large", "the file has reached its size limit"),
    ("Read-only file system", "the file system is read-only"),
    ("Permission denied", "permission to write to the file or its folder is missing"),
    ("Is a directory", "there is a folder of that name"),
    ("Too many open files", "the process has too many open files"),
    ("Out of Memory", "the memory limit of the database is reached"),
    ("fsync failed", "the disk failed to store a change"),
    ("Input/output error", "the disk reports an error"),
    ("Connection already closed", "it was closed meanwhile"),
    ("is already attached", "it is still open in this process"),
)

_TEMPORARY = (
    duckdb.TransactionException,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.ConnectionException,
)


def reason(error: BaseException) -> str:
    """The reason why DuckDB or the system refused, worded as the end of a sentence."""
    text = str(error)
    if "Could not set lock" in text:
        holder = _LOCK_HOLDER.search(text)
        return f"it is in use by another process ({f'pid {holder[1]}' if holder else 'unknown pid'})"
    for mark, meaning in _REASONS:
        if mark in text:
            return meaning
    return f"DuckDB reports {type(error).__name__}"


def ends_instance(error: BaseException) -> bool:
    """Whether the error made every handle useless, so that all must be closed before the file is opened again."""
    return isinstance(error, duckdb.FatalException | duckdb.InternalException)


def is_temporary(error: BaseException) -> bool:
    """Whether the same call may succeed later, because the disk or the system failed and not the statement."""
    return ends_instance(error) or isinstance(error, _TEMPORARY)


def is_bad_text(error: BaseException) -> bool:
    """Whether the error says that a text is not valid Unicode and so cannot be stored."""
    return isinstance(error, UnicodeEncodeError) or "cannot encode str as UTF-8" in str(error)
