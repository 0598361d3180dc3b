"""Opens the database file: creates it if it is missing, applies migrations, looks for lost rows."""

import os
from pathlib import Path
from typing import Any

import duckdb

from serve_app.errors import StoreUnavailable
from serve_app.store.schema import MIGRATIONS, ROW_GROUP_ROWS, Migration, dimensions, vectors_table
from serve_app.store.session import Session, quoted

NAME = "constellate"
"""The name under which DuckDB knows the file; the instance itself has no file."""


def connect(path: Path, config: dict[str, Any], *, backups: Path) -> duckdb.DuckDBPyConnection:
    """Open the file, and create it first if it is missing; SQL can reach only this file and the folder `backups`.

    Raises:
        StoreUnavailable: the file is missing but its write-ahead log exists.
        duckdb.Error, OSError: the file cannot be opened or created.
    """
    if not path.exists():
        if path.with_name(path.name + ".wal").exists():
            raise StoreUnavailable(
                f"The file {path.name} is missing but its write-ahead log is there: put the file back. "
                "Nothing was created, because that would destroy the log."
            )
        _create(path, config)
    root = _attached(path, config)
    try:
        root.execute("PRAGMA disable_checkpoint_on_shutdown").fetchall()
        root.execute(f"SET allowed_directories = [{quoted(f'{backups}/')}]").fetchall()
        root.execute("SET enable_external_access = false").fetchall()
        root.execute("SET lock_configuration = true").fetchall()
    except BaseException:
        root.close()
        raise
    return root


def _attached(path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """A connection to the file. Only ATTACH takes the size of row groups; a file keeps the groups that it has."""
    root = duckdb.connect(config=config | {"temp_directory": f"{path}.tmp"})
    try:
        root.execute(f"ATTACH {quoted(str(path))} AS {NAME} (ROW_GROUP_SIZE {ROW_GROUP_ROWS})").fetchall()
        use(root)
    except BaseException:
        root.close()
        raise
    return root


def use(connection: duckdb.DuckDBPyConnection) -> None:
    """Let the statements of a connection mean the file's tables; each cursor needs this once."""
    connection.execute(f"USE {NAME}").fetchall()


def _create(path: Path, config: dict[str, Any]) -> None:
    """Create an empty database with all tables, readable by its owner alone; it is on disk when this returns.

    The file has another name until it is complete, so that a process that dies half-way does no harm: DuckDB refuses
    a file without complete headers, because it cannot tell such a file from a damaged one.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    _remove(unfinished)
    root = _attached(unfinished, config)
    try:
        unfinished.chmod(0o600)
        migrate(Session(root))
        # DuckDB still holds the lock of the unfinished file, so only one process gets here at a time.
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
    """Force a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def migrate(session: Session) -> None:
    """Apply the missing migrations in one transaction and record their names.

    Raises:
        StoreUnavailable: the file belongs to another program, or a newer version of this program wrote it.
        duckdb.Error: a statement failed.
    """
    missing = _missing_migrations(session)
    if not missing:
        return
    session.q("BEGIN TRANSACTION")
    session.q("CREATE TABLE IF NOT EXISTS migrations (name VARCHAR NOT NULL)")
    for migration in missing:
        migration.apply(session)
        session.q("INSERT INTO migrations VALUES (?)", migration.name)
    session.q("COMMIT")
    session.q("CHECKPOINT")


def _missing_migrations(session: Session) -> list[Migration]:
    tables = {name for (name,) in session.q("SELECT table_name FROM duckdb_tables()")}
    if not tables:
        return list(MIGRATIONS)
    if "migrations" not in tables:
        raise StoreUnavailable("The database file belongs to another program; it was left as it is.")
    applied = {name for (name,) in session.q("SELECT name FROM migrations")}
    unknown = applied - {migration.name for migration in MIGRATIONS}
    if unknown:
        raise StoreUnavailable("The database was written by a newer version of Constellate; run that version.")
    return [migration for migration in MIGRATIONS if migration.name not in applied]


def find_losses(session: Session) -> list[str]:
    """Compare the counts in the job rows with the stored rows (invariants I4 and I6).

    DuckDB opens a database without complaint when its write-ahead log was deleted or cut off, and transactions are
    missing then. Counts that disagree are the only trace.

    Returns:
        One sentence for each disagreement.
    """
    problems = _lost_vectors(session)
    orphans = session.q(
        "SELECT d.name FROM datasets d JOIN sets s ON s.dataset_id = d.id LEFT JOIN jobs j ON j.id = s.job_id "
        "WHERE j.id IS NULL ORDER BY d.name"
    )
    problems += [f"The job that made the vectors of dataset '{name}' is missing." for (name,) in orphans]
    miscounted = session.q(
        "SELECT d.name, d.sample_count, count(s.sample_id) FROM datasets d LEFT JOIN samples s ON s.dataset_id = d.id "
        "GROUP BY d.id, d.name, d.sample_count HAVING count(s.sample_id) <> d.sample_count ORDER BY d.name"
    )
    return problems + [
        f"Dataset '{name}' should have {expected:,} samples and has {found:,}." for name, expected, found in miscounted
    ]


def _lost_vectors(session: Session) -> list[str]:
    """Jobs that have not as many vectors as they should, unless these are retired."""
    counts = " UNION ALL ".join(
        f"SELECT job_id, {dimension} AS dimension, count(*) AS n FROM {vectors_table(dimension)} GROUP BY job_id"
        for dimension in dimensions(session)
    )
    rows = session.q(
        "SELECT d.name, j.id, s.job_id IS NOT NULL, if(s.job_id IS NOT NULL OR j.status = 'running', "
        "j.embedded + j.reused, 0) AS expected, coalesce(v.n, 0) AS found "
        "FROM jobs j JOIN datasets d ON d.id = j.dataset_id LEFT JOIN sets s ON s.job_id = j.id "
        f"LEFT JOIN ({counts}) v ON v.job_id = j.id AND v.dimension = j.dimension "
        "WHERE j.dimension IS NOT NULL AND j.kind IN ('embed', 'import') AND expected <> found "
        "AND NOT EXISTS (FROM retired r WHERE r.id = j.id AND r.relation = 'vectors_' || j.dimension) "
        "ORDER BY d.name, j.id"
    )
    return [
        f"Dataset '{name}' should have {expected:,} vectors and has {found:,}."
        if is_current
        else f"Job {job} should have {expected:,} staged vectors and has {found:,}."
        for name, job, is_current, expected, found in rows
    ]
