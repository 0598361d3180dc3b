"""A database with a large set of vectors, made in seconds past the store's own staging."""

import numpy as np
import pyarrow as pa

from serve_app.store.database import Database
from serve_app.store.schema import create_vector_tables, vectors_table

BLOCK_ROWS = 20_000
FOLDER = "bucket/of/photographs/taken/over/many/years/by/many/people/in/many/places"


def file_name(row):
    """As long as the names of real collections are."""
    return f"{FOLDER}/class-{row % 50:02d}/photograph-{row:09d}-of-the-collection.jpg"


def fill(path, sets):
    """Create datasets with clustered vectors, {name: (rows, dimension)}; returns their ids by name."""
    # The memory is for this alone: what a test opens later has the writer's own limit.
    database = Database(path, memory_limit_mb=1500)
    random = np.random.default_rng(0)
    for number, (name, (rows, dimension)) in enumerate(sets.items(), start=1):
        with database.transaction() as session:
            create_vector_tables(session, dimension)
            session.q(
                "INSERT INTO datasets (id, name, root, format, sample_count, scan_no, created_at) "
                "VALUES (?, ?, '/roots', 'manifest', ?, 1, now()::TIMESTAMP)",
                *(f"id-of-{name}", name, rows),
            )
            session.q(
                "INSERT INTO jobs SELECT ?, ?, ?, 'import', 'complete', 'complete', NULL, 1, 0, 1, ?, ?, 0, 0, '', "
                "'synthetic', 'space', ?, false, '{}', NULL, 1, now()::TIMESTAMP, now()::TIMESTAMP, NULL, NULL, NULL",
                *(f"job-of-{name}", number, f"id-of-{name}", rows, rows, dimension),
            )
            session.q(
                "INSERT INTO sets VALUES (?, 'synthetic', ?, NULL, ?, 0, NULL)", f"id-of-{name}", f"job-of-{name}", rows
            )
        centres = random.standard_normal((100, dimension), np.float32)
        for start in range(0, rows, BLOCK_ROWS):
            numbers = np.arange(start, min(rows, start + BLOCK_ROWS))
            _add(database, name, numbers, centres[numbers % len(centres)], random)
    database.checkpoint()
    database.close()
    return {name: f"id-of-{name}" for name in sets}


def _add(database, name, numbers, centres, random):
    names = [file_name(number) for number in numbers]
    values = centres + np.float32(0.8) * random.standard_normal(centres.shape, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), centres.shape[1])
    with database.transaction() as session:
        session.bind("block", pa.table({"ordinal": numbers, "name": names, "vector": vectors}))
        session.q(
            "INSERT INTO samples (dataset_id, ordinal, sample_id, file_name, label, size_bytes, mtime_ns) "
            "SELECT ?, ordinal, name, name, 'label', -1, -1 FROM block",
            f"id-of-{name}",
        )
        session.q(
            f"INSERT INTO {vectors_table(centres.shape[1])} BY NAME "
            "SELECT ? AS job_id, name AS sample_id, vector, 'imported:' || name AS content_hash FROM block",
            f"job-of-{name}",
        )
