"""The tables and views, as an ordered list of named migrations.

There is no primary key, unique constraint, foreign key or index. The one writer keeps rows unique, and the queries
of `docs/invariants.md` check it. DuckDB's indexes slow loads down, and their replay after a crash has a history of
defects. Times are UTC without a zone, because reading TIMESTAMPTZ needs a package that is not a dependency.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from serve_app.errors import InvalidRequest
from serve_app.store.session import Session

BASE_DIMENSION = 768
USUAL_DIMENSIONS = (384, 768, 1024, 1536)
ROW_GROUP_ROWS = 2048
"""This is DuckDB's least. A block that fills row groups goes straight to the file, and the log only names them. Rows
that are added to a group that is not full cost a new copy of the group: at 122,880 rows of 768 numbers, 0.4 GB."""
MAX_DIMENSION = 16_384

VALUE_TYPES = {"text": "VARCHAR", "number": "DOUBLE", "boolean": "BOOLEAN", "time": "TIMESTAMP"}
"""The types of columns, and DuckDB's for them."""

_VECTORS_NAME = re.compile(r"vectors_(\d+)")


def vectors_table(dimension: int) -> str:
    """The table of vectors of this dimension, staged and current ones, each under the job that made it."""
    return f"vectors_{int(dimension)}"


def view_name(dimension: int) -> str:
    """The view of the current vectors of this dimension: `embeddings` for 768, `embeddings_<dim>` otherwise."""
    return "embeddings" if dimension == BASE_DIMENSION else f"embeddings_{int(dimension)}"


def values_table(type_name: str) -> str:
    """The table that holds the values of columns of this type, a key of `VALUE_TYPES`."""
    if type_name not in VALUE_TYPES:
        raise InvalidRequest(f"there is no type '{type_name}'")
    return f"column_{type_name}s"


def dimensions(session: Session) -> list[int]:
    """The dimensions that have tables."""
    names = session.q(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database() "
        "AND table_name LIKE 'vectors%' ORDER BY table_name"
    )
    found = [_VECTORS_NAME.fullmatch(name) for (name,) in names]
    return [int(match[1]) for match in found if match]


def create_vector_tables(session: Session, dimension: int) -> None:
    """Create the table and the view for a dimension unless they exist.

    Raises:
        InvalidRequest: the dimension is out of range.
    """
    if not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidRequest(f"vectors of dimension {dimension} cannot be stored; the limit is {MAX_DIMENSION:,}")
    session.q(
        f"CREATE TABLE IF NOT EXISTS {vectors_table(dimension)} (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, "
        f"vector FLOAT[{int(dimension)}] NOT NULL, content_hash VARCHAR, size_bytes BIGINT, mtime_ns BIGINT)"
    )
    create_view(session, dimension)


def create_view(session: Session, dimension: int) -> None:
    """Create the view of a dimension's current vectors with their points, unless it exists."""
    session.q(
        f"CREATE VIEW IF NOT EXISTS {view_name(dimension)} AS SELECT v.sample_id, s.dataset_id, s.model_name, "
        f"v.vector, p.x, p.y, v.job_id, v.content_hash, v.size_bytes, v.mtime_ns FROM {vectors_table(dimension)} v "
        "JOIN sets s ON s.job_id = v.job_id "
        "LEFT JOIN points p ON p.job_id = s.map_job_id AND p.sample_id = v.sample_id"
    )


def _first_tables(session: Session) -> None:
    session.q("CREATE TABLE meta (writer_epoch BIGINT NOT NULL, checks BIGINT NOT NULL)")
    session.q("INSERT INTO meta VALUES (0, 0)")
    session.q(
        "CREATE TABLE datasets (id VARCHAR NOT NULL, name VARCHAR NOT NULL, root VARCHAR NOT NULL, "
        "format VARCHAR NOT NULL, annotations VARCHAR, sample_count BIGINT NOT NULL, scan_no BIGINT NOT NULL, "
        "vectors_job_id VARCHAR, created_at TIMESTAMP NOT NULL)"
    )
    session.q(
        "CREATE TABLE samples (dataset_id VARCHAR NOT NULL, ordinal BIGINT NOT NULL, sample_id VARCHAR NOT NULL, "
        "file_name VARCHAR NOT NULL, label VARCHAR, size_bytes BIGINT NOT NULL, mtime_ns BIGINT NOT NULL)"
    )
    session.q("CREATE TABLE scans (id VARCHAR NOT NULL)")
    session.q(
        "CREATE TABLE scan_files (scan_id VARCHAR NOT NULL, page BIGINT NOT NULL, position BIGINT NOT NULL, "
        "sample_id VARCHAR NOT NULL, file_name VARCHAR NOT NULL, label VARCHAR, size_bytes BIGINT NOT NULL, "
        "mtime_ns BIGINT NOT NULL)"
    )
    session.q(
        "CREATE TABLE jobs (id VARCHAR NOT NULL, number BIGINT NOT NULL, dataset_id VARCHAR NOT NULL, "
        "kind VARCHAR NOT NULL, status VARCHAR NOT NULL, phase VARCHAR NOT NULL, reason VARCHAR, "
        "attempt INTEGER NOT NULL, last_block BIGINT NOT NULL, seq BIGINT NOT NULL, total BIGINT NOT NULL, "
        "embedded BIGINT NOT NULL, reused BIGINT NOT NULL, skipped BIGINT NOT NULL, message VARCHAR NOT NULL, "
        "model_name VARCHAR, space_key VARCHAR, dimension INTEGER, force BOOLEAN NOT NULL, params VARCHAR NOT NULL, "
        "vectors_job_id VARCHAR, scan_no BIGINT NOT NULL, created_at TIMESTAMP NOT NULL, finished_at TIMESTAMP)"
    )
    session.q(
        "CREATE TABLE job_skips (job_id VARCHAR NOT NULL, position BIGINT NOT NULL, sample_id VARCHAR NOT NULL, "
        "file_name VARCHAR NOT NULL, reason VARCHAR NOT NULL, detail VARCHAR NOT NULL)"
    )
    for dimension in USUAL_DIMENSIONS:
        stamp = "content_hash VARCHAR, size_bytes BIGINT, mtime_ns BIGINT"
        session.q(
            f"CREATE TABLE {view_name(dimension)} (sample_id VARCHAR NOT NULL, dataset_id VARCHAR NOT NULL, "
            f"model_name VARCHAR NOT NULL, vector FLOAT[{dimension}] NOT NULL, x DOUBLE, y DOUBLE, "
            f"job_id VARCHAR NOT NULL, {stamp})"
        )
        session.q(
            f"CREATE TABLE {_first_stage(dimension)} (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, "
            f"vector FLOAT[{dimension}] NOT NULL, {stamp})"
        )


def _first_stage(dimension: int) -> str:
    """The table that once held the vectors of running jobs."""
    return "stage" if view_name(dimension) == "embeddings" else f"stage_{dimension}"


def _staged_points(session: Session) -> None:
    session.q(
        "CREATE TABLE import_points (job_id VARCHAR NOT NULL, sample_id VARCHAR NOT NULL, x DOUBLE NOT NULL, "
        "y DOUBLE NOT NULL)"
    )


def _place_in_container(session: Session) -> None:
    """Add the place of an image within a tar or Parquet file."""
    session.q("ALTER TABLE samples ADD COLUMN place VARCHAR")
    session.q("ALTER TABLE scan_files ADD COLUMN place VARCHAR")


def _kept_counts(session: Session) -> None:
    """Add the numbers of a dataset's vectors and points, so that nobody has to count them."""
    session.q("ALTER TABLE datasets ADD COLUMN vector_count BIGINT DEFAULT 0")
    session.q("ALTER TABLE datasets ADD COLUMN placed_count BIGINT DEFAULT 0")
    for dataset_id, dimension in session.q(
        "SELECT d.id, j.dimension FROM datasets d JOIN jobs j ON j.id = d.vectors_job_id"
    ):
        counts = session.q(
            f"SELECT count(*), count(e.x) FROM {view_name(dimension)} e SEMI JOIN samples s "
            "USING (dataset_id, sample_id) WHERE e.dataset_id = ?",
            dataset_id,
        )[0]
        session.q("UPDATE datasets SET vector_count = ?, placed_count = ? WHERE id = ?", *counts, dataset_id)


def _columns_and_tags(session: Session) -> None:
    """Add columns of datasets, one narrow table for each type, and tags (decision 0015)."""
    session.q(
        "CREATE TABLE dataset_columns (dataset_id VARCHAR NOT NULL, name VARCHAR NOT NULL, type VARCHAR NOT NULL, "
        "column_id BIGINT NOT NULL)"
    )
    for type_name, sql_type in VALUE_TYPES.items():
        session.q(
            f"CREATE TABLE {values_table(type_name)} (column_id BIGINT NOT NULL, sample_id VARCHAR NOT NULL, "
            f"value {sql_type} NOT NULL)"
        )
    session.q("CREATE TABLE tags (dataset_id VARCHAR NOT NULL, tag VARCHAR NOT NULL, sample_id VARCHAR NOT NULL)")


def _origins(session: Session) -> None:
    """Add where a column comes from: a client, the source, or images as they were read."""
    session.q("ALTER TABLE dataset_columns ADD COLUMN origin VARCHAR DEFAULT 'put'")


def _notices(session: Session) -> None:
    """Add what the last listing left out: a JSON list of sentences."""
    session.q("ALTER TABLE datasets ADD COLUMN notices VARCHAR DEFAULT '[]'")


def _notifications(session: Session) -> None:
    """Add the webhook at a job's end, and whether it was delivered."""
    for name in ("notify_url", "notified", "notify_detail"):
        session.q(f"ALTER TABLE jobs ADD COLUMN {name} VARCHAR")


def _sets_by_job(session: Session) -> None:
    """Leave rows where they were staged, and name the current sets in one table (decision 0018)."""
    session.q(
        "CREATE TABLE sets (dataset_id VARCHAR NOT NULL, model_name VARCHAR NOT NULL, job_id VARCHAR NOT NULL, "
        "map_job_id VARCHAR, vector_count BIGINT NOT NULL, placed_count BIGINT NOT NULL)"
    )
    session.q("CREATE TABLE retired (relation VARCHAR NOT NULL, id VARCHAR NOT NULL)")
    session.q("ALTER TABLE import_points RENAME TO points")
    session.q(  # a running import counts its points in its row from now on
        "UPDATE jobs SET params = '{\"placed\": ' || p.n || '}' FROM (SELECT job_id, count(*) AS n FROM points "
        "GROUP BY job_id) p WHERE p.job_id = jobs.id AND jobs.status = 'running' AND jobs.kind = 'import'"
    )
    found = session.q(
        "SELECT CASE table_name WHEN 'embeddings' THEN 768 ELSE split_part(table_name, '_', 2)::INTEGER END "
        "FROM duckdb_tables() WHERE database_name = current_database() AND regexp_full_match(table_name, "
        "'embeddings(_[0-9]+)?') ORDER BY 1"
    )
    for (dimension,) in found:
        _keep_rows_where_they_are(session, dimension)
    # A map goes by the name of the set's own job: which reduction made it was not always kept.
    session.q(
        "INSERT INTO sets SELECT d.id, j.model_name, j.id, if(j.id IN (SELECT job_id FROM points), j.id, NULL), "
        "d.vector_count, d.placed_count FROM datasets d JOIN jobs j ON j.id = d.vectors_job_id"
    )
    for column in ("vectors_job_id", "vector_count", "placed_count"):
        session.q(f"ALTER TABLE datasets DROP COLUMN {column}")


def _keep_rows_where_they_are(session: Session, dimension: int) -> None:
    table = vectors_table(dimension)
    session.q(
        f"INSERT INTO points SELECT e.job_id, e.sample_id, e.x, e.y FROM {view_name(dimension)} e WHERE e.x IS NOT NULL"
    )
    session.q(f"ALTER TABLE {view_name(dimension)} RENAME TO {table}")
    for column in ("dataset_id", "model_name", "x", "y"):
        session.q(f"ALTER TABLE {table} DROP COLUMN {column}")
    session.q(f"INSERT INTO {table} BY NAME FROM {_first_stage(dimension)}")
    session.q(f"DROP TABLE {_first_stage(dimension)}")
    create_view(session, dimension)


def _maps_that_stay(session: Session) -> None:
    """Add what finds the points of images again in a newer set (decision 0021)."""
    session.q("ALTER TABLE points ADD COLUMN content UBIGINT")
    session.q("ALTER TABLE sets ADD COLUMN earlier_map_job_id VARCHAR")


class Migration(NamedTuple):
    """One step of the schema; its name is stored once it has been applied."""

    name: str
    apply: Callable[[Session], None]


MIGRATIONS: tuple[Migration, ...] = (
    Migration("first tables", _first_tables),
    Migration("points of imports", _staged_points),
    Migration("place in a container", _place_in_container),
    Migration("kept counts", _kept_counts),
    Migration("columns and tags", _columns_and_tags),
    Migration("origins of columns", _origins),
    Migration("notices of listings", _notices),
    Migration("webhooks of jobs", _notifications),
    Migration("sets by job", _sets_by_job),
    Migration("maps that stay", _maps_that_stay),
)
