"""A database from before sets were rows where they were staged: opened, it has lost nothing."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from serve_app.errors import StoreUnavailable
from serve_app.store.database import Database
from serve_app.store.session import Session
from tests.invariants import check_invariants
from tests.unit.store.workbench import CARD, Workbench, block_of, source_files
from tests.whole_set import read_now

SCRIPT = Path(__file__).with_name("before_sets.sql")
OF_EMBEDDINGS = (
    "SELECT sample_id, dataset_id, model_name, vector, x, y, job_id, content_hash, size_bytes, mtime_ns "
    "FROM {} ORDER BY ALL"
)
TABLES = ("vectors_384", "vectors_24", "points", "retired")
VIEWS = ("embeddings", "embeddings_24", "embeddings_384")


@pytest.fixture
def old(path):
    """The old file, and what its tables of embeddings hold."""
    path.parent.mkdir()
    with duckdb.connect(str(path)) as connection:
        connection.execute(SCRIPT.read_text())
        return [connection.execute(OF_EMBEDDINGS.format(name)).fetchall() for name in VIEWS]


def test_every_set_is_there_bit_for_bit_and_readable_with_stock_duckdb(path, old):
    database = Database(path)
    assert database.check() == []
    database.close()
    check_invariants(path)
    with duckdb.connect(str(path)) as connection:
        assert [connection.execute(OF_EMBEDDINGS.format(name)).fetchall() for name in VIEWS] == old


def test_the_kept_counts_and_the_map_go_on(path, old):
    bench = Workbench(path)
    found = read_now(bench.vectors, "d-flowers")
    assert (found.sample_ids, found.points.tolist()) == (
        [f"img/{i}.jpg" for i in range(4)],
        [[i, -i] for i in range(4)],
    )
    assert bench.vectors.status("d-flowers").has_reduction
    assert bench.vectors.status("d-weeds").embedding_count == 2
    assert not bench.vectors.status("d-birds").has_embeddings
    bench.database.close()


def test_jobs_that_were_running_go_on_from_what_they_had_staged(path, old):
    bench = Workbench(path)
    files = source_files(4)
    claim = bench.resume("j-going-on")
    assert [file.sample_id for file in bench.observe(claim, files)] == ["img/2.jpg", "img/3.jpg"]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[2:]))
    assert bench.vectors.commit(claim.job.id, claim.attempt).status == "complete"
    imported = bench.jobs.claim("runner", holding=["j-going-on"], lease_s=30)
    with bench.database.read() as session:
        assert json.loads(session.value("SELECT params FROM jobs WHERE id = 'j-import'")) == {"placed": 1}
    assert bench.vectors.commit(imported.job.id, imported.attempt).status == "error"  # half of its rows came
    bench.delete_retired()
    bench.database.close()
    check_invariants(path)
    with duckdb.connect(str(path)) as connection:
        left = [connection.execute(f"SELECT count(*) FROM {table}").fetchall() for table in TABLES]
    assert left == [[(4,)], [(0,)], [(0,)], [(0,)]]


def test_an_old_file_takes_a_set_of_another_model_beside_its_own(path, old):
    bench = Workbench(path)
    for dataset in ("d-flowers", "d-birds"):
        bench.jobs.cancel(dataset)
    before = read_now(bench.vectors, "d-flowers").vectors
    files = source_files(4)
    bench.embed(bench.datasets.get("d-flowers"), files, card=replace(CARD, name="second", space_key="space-second"))
    sets = bench.vectors.status("d-flowers").sets
    assert [(one.model_name, one.has_reduction) for one in sets] == [("second", False), ("dinov2-small", True)]
    assert read_now(bench.vectors, "d-flowers", "dinov2-small").vectors.tolist() == before.tolist()
    bench.delete_retired()
    bench.database.close()
    check_invariants(path)


@pytest.mark.parametrize("nth", [1, 5, 12, 25, "COMMIT", "CHECKPOINT"])
def test_a_migration_that_breaks_off_at_any_statement_changes_nothing(path, old, monkeypatch, nth):
    database, statements = Database(path, clock=iter(range(0, 10**6, 10)).__next__), []

    def q(session, sql, *parameters, real=Session.q):
        statements.append(sql)
        if nth in (len(statements), sql):
            raise duckdb.IOException("Input/output error")
        return real(session, sql, *parameters)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "q", q)
        with pytest.raises(StoreUnavailable):
            database.check()
    assert database.check() == []
    database.close()
    check_invariants(path)
    with duckdb.connect(str(path)) as connection:
        assert [connection.execute(OF_EMBEDDINGS.format(name)).fetchall() for name in VIEWS] == old


def test_a_file_from_before_the_counts_gets_them_on_the_way(path, old):
    with duckdb.connect(str(path)) as connection:
        for column in ("vector_count", "placed_count"):
            connection.execute(f"ALTER TABLE datasets DROP COLUMN {column}")
        connection.execute("DELETE FROM migrations WHERE name = 'kept counts'")
    bench = Workbench(path)
    status = bench.vectors.status("d-flowers")
    assert (status.embedding_count, status.has_reduction) == (4, True)
    bench.database.close()
    check_invariants(path)
