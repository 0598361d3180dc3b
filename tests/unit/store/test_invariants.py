"""The queries of docs/invariants.md notice what they are there for."""

import duckdb
import pytest

from tests.invariants import check_invariants, documented_queries, fingerprint
from tests.unit.store.workbench import Workbench, source_files


def test_every_invariant_is_written_down_as_a_query():
    assert {name for name, _, _ in documented_queries()} == {f"I{i}" for i in range(1, 10)}


BROKEN = {
    "I4 ": "DELETE FROM vectors_384",
    "I1": "INSERT INTO vectors_384 SELECT * FROM vectors_384 LIMIT 1",
    "I2": "UPDATE sets SET model_name = 'other'",
    "I2 ": "INSERT INTO sets FROM sets",
    "I3": "UPDATE vectors_384 SET vector = (SELECT array_agg('nan'::FLOAT)::FLOAT[384] FROM range(384))",
    "I4": "UPDATE jobs SET skipped = skipped + 1",
    "I5": "UPDATE jobs SET status = 'lost'",
    "I6": "INSERT INTO vectors_384 SELECT * REPLACE ('nobody' AS job_id) FROM vectors_384",
    "I6 ": "INSERT INTO retired SELECT 'vectors_384', job_id FROM sets",
    "I7": "UPDATE samples SET sample_id = 'renamed' WHERE ordinal = 0",
}


@pytest.mark.parametrize(("name", "damage"), BROKEN.items(), ids=BROKEN)
def test_each_invariant_notices_its_damage(path, name, damage):
    bench = Workbench(path)
    files = source_files(3)
    bench.embed(bench.register(files), files)
    bench.database.close()
    with duckdb.connect(str(path)) as connection:
        check_invariants(connection)
        connection.execute(damage)
        with pytest.raises(AssertionError, match=f"{name.strip()} "):
            check_invariants(connection)


def test_the_fingerprint_changes_with_one_bit(bench):
    files = source_files(2)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    with bench.database.read() as session:
        before = fingerprint(session, dataset.id)
    with bench.database.transaction() as session:
        session.q("UPDATE vectors_384 SET mtime_ns = mtime_ns + 1 WHERE sample_id = 'img/1.jpg'")
    with bench.database.read() as session:
        assert fingerprint(session, dataset.id) != before
