"""Runs the queries of `docs/invariants.md`, and no others, against a database."""

import re
from pathlib import Path

import duckdb

from serve_app.store.session import Session

DOCUMENT = Path(__file__).parents[1] / "docs" / "invariants.md"

_SECTION = re.compile(r"^## (I\d) (.+?)$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_QUERY = re.compile(r"^```sql\n(.+?)^```$", re.MULTILINE | re.DOTALL)


def documented_queries():
    """(invariant, its title, query) for every query of the document, in order."""
    return [
        (name, title, query)
        for name, title, text in _SECTION.findall(DOCUMENT.read_text(encoding="utf-8"))
        for query in _QUERY.findall(text)
    ]


def check_invariants(source):
    """Assert that I1 to I7 hold in a database: a path, a DuckDB connection or a `Session`."""
    if isinstance(source, str | Path):
        with duckdb.connect(str(source)) as connection:
            check_invariants(connection)
        return
    dimensions = _filled_dimensions(source)
    # A query without vectors reads the same for every dimension and is asked once.
    queries = {
        for_dimension(query, dimension): f"{name} {title}"
        for name, title, query in documented_queries()
        if name != "I8"
        for dimension in dimensions
    }
    rules = list(queries.values())
    # DuckDB plans one statement of all in half the time of many, and with few rows it does little else.
    each = [f"(SELECT {number}, row::VARCHAR FROM ({query}) row LIMIT 3)" for number, query in enumerate(queries)]
    broken = [f"{rules[number]}: {row}" for number, row in _rows(source, " UNION ALL ".join(each))]
    assert not broken, "\n".join(broken)


def fingerprint(source, dataset_id):
    """I8: what identifies a dataset's vectors bit for bit, over the tables of all dimensions."""
    (query,) = [query for name, _, query in documented_queries() if name == "I8"]
    return [_rows(source, for_dimension(query, dimension), dataset_id) for dimension in _dimensions(source)]


def for_dimension(query, dimension):
    """The query, for the tables of another dimension than 768."""
    if dimension == 768:
        return query
    return re.sub(
        r"(\bvectors_|\b)768\b", rf"\g<1>{dimension}", re.sub(r"\bembeddings\b", rf"\g<0>_{dimension}", query)
    )


def _dimensions(source):
    names = _rows(source, "SELECT table_name FROM duckdb_tables() WHERE table_name LIKE 'vectors%' ORDER BY table_name")
    return [int(name.partition("_")[2]) for (name,) in names]


def _filled_dimensions(source):
    """Those of which there are vectors or jobs, or else 768: where there are neither, no query finds anything."""
    known = _dimensions(source)
    asked = [f"SELECT {n} WHERE EXISTS (FROM vectors_{n})" for n in known]
    found = _rows(source, " UNION ".join([*asked, "SELECT dimension FROM jobs"]))
    return [n for n in known if (n,) in found] or [768]


def _rows(source, sql, *parameters):
    if isinstance(source, Session):
        return source.q(sql, *parameters)
    return source.execute(sql, list(parameters)).fetchall()
