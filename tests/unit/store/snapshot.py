"""The whole content of a database as values that two runs have in common."""

from serve_app.store.session import Session

# What a writer knows about itself, and what only tells how often it was started.
_NOT_CONTENT = {"meta", "migrations", "retired"}
_TIMES = {"created_at", "finished_at"}
_TRIES = {"attempt", "seq", "last_block"}
_SCANS = {"scans", "scan_files"}


def snapshot(session: Session, *, tries: bool = True):
    """Every row of every table, by table, in an order that does not depend on how it was stored.

    Ids that are made up anew in each run are replaced by what they stand for: a job's number, a dataset's name.
    Rows that are retired are no content: when they are deleted depends on what else the writer has to do.
    Without `tries`, what only tells how often a call was repeated is left out, open scans too.
    """
    names = dict(session.q("SELECT id, 'dataset ' || name FROM datasets"))
    names |= dict(session.q("SELECT id, 'job ' || number FROM jobs"))
    names |= dict(
        session.q("SELECT dataset_id, 'dataset ' || (params::JSON->>'name') FROM jobs WHERE kind = 'register'")
    )
    names |= {scan_id: "a scan" for (scan_id,) in session.q("SELECT id FROM scans")}
    content = {}
    for table, columns in session.q(
        "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() "
        "WHERE NOT internal GROUP BY ALL ORDER BY ALL"
    ):
        if table in _NOT_CONTENT or (not tries and table in _SCANS):
            continue
        kept = [name for name in columns if name not in _TIMES and (tries or name not in _TRIES)]
        chosen = ", ".join("hash(vector)" if name == "vector" else name for name in kept)
        key = {"samples": "dataset_id", "scan_files": "scan_id"}.get(table, "job_id")
        retired = f" WHERE {key} NOT IN (SELECT id FROM retired WHERE relation = '{table}')" if key in columns else ""
        # To read vectors of 1,536 numbers, two threads take most of the writer's memory, also where there are none.
        is_filled = session.value(f"SELECT count(*) FROM {table}") > 0
        rows = session.q(f"SELECT {chosen} FROM {table}{retired}") if is_filled else []
        content[table] = sorted(repr([names.get(value, value) for value in row]) for row in rows)
    return content
