"""What is looked at when the database opens: does it hold what its job rows say was committed?

A write-ahead log that is deleted or cut off opens without complaint, with fewer transactions; the counts that
disagree afterwards are the only trace.
"""

from serve_app.store.schema import dimensions, embeddings_table, stage_table
from serve_app.store.session import Session


def find_losses(session: Session) -> list[str]:
    """Compare counted and stored rows (invariants I4 and I6); one sentence for each disagreement."""
    known = dimensions(session)
    problems = _lost_vectors(session, known) + _lost_stage(session, known)
    orphans = session.q(
        "SELECT d.name FROM datasets d LEFT JOIN jobs j ON j.id = d.vectors_job_id "
        "WHERE d.vectors_job_id IS NOT NULL AND j.id IS NULL ORDER BY d.name"
    )
    problems += [f"The job that made the vectors of dataset '{name}' is missing." for (name,) in orphans]
    miscounted = session.q(
        "SELECT d.name, d.sample_count, count(s.sample_id) FROM datasets d LEFT JOIN samples s ON s.dataset_id = d.id "
        "GROUP BY d.id, d.name, d.sample_count HAVING count(s.sample_id) <> d.sample_count ORDER BY d.name"
    )
    return problems + [
        f"Dataset '{name}' should have {expected:,} samples and has {found:,}." for name, expected, found in miscounted
    ]


def _lost_vectors(session: Session, known: list[int]) -> list[str]:
    rows = session.q(
        "SELECT d.name, j.embedded + j.reused AS expected, coalesce(e.n, 0) AS found FROM datasets d "
        "JOIN jobs j ON j.id = d.vectors_job_id "
        f"LEFT JOIN ({_counts({dimension: embeddings_table(dimension) for dimension in known})}) e "
        "ON e.job_id = j.id AND e.dimension = j.dimension WHERE expected <> found ORDER BY d.name"
    )
    return [f"Dataset '{name}' should have {expected:,} vectors and has {found:,}." for name, expected, found in rows]


def _lost_stage(session: Session, known: list[int]) -> list[str]:
    rows = session.q(
        "SELECT j.id, CASE WHEN j.status = 'running' THEN j.embedded + j.reused ELSE 0 END AS expected, "
        "coalesce(t.n, 0) AS found FROM jobs j "
        f"LEFT JOIN ({_counts({dimension: stage_table(dimension) for dimension in known})}) t "
        "ON t.job_id = j.id AND t.dimension = j.dimension "
        "WHERE j.kind <> 'reduce' AND j.dimension IS NOT NULL AND expected <> found ORDER BY j.id"
    )
    return [f"Job {job} should have {expected:,} staged vectors and has {found:,}." for job, expected, found in rows]


def _counts(tables: dict[int, str]) -> str:
    """SQL for the rows of each job in tables of vectors, by dimension."""
    return " UNION ALL ".join(
        f"SELECT job_id, {dimension} AS dimension, count(*) AS n FROM {table} GROUP BY job_id"
        for dimension, table in tables.items()
    )
