"""Making the file, refusing what is no database of ours, and finding what one has lost."""

import stat

import duckdb
import pytest

from serve_app.store import schema
from serve_app.store.database import Database
from tests.invariants import check_invariants
from tests.unit.store.workbench import Workbench, block_of, listing, refusal, source_files


def test_a_new_database_is_private_and_sound(path):
    database = Database(path)
    assert not path.exists()
    assert database.check() == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    database.close()


def test_a_file_left_unfinished_by_a_writer_that_died_making_it_is_in_nobodys_way(path):
    path.parent.mkdir()
    for ending in (".new", ".new.wal"):
        path.with_name(path.name + ending).write_bytes(b"half a header")
    database = Database(path)
    assert database.check() == []
    database.close()
    assert listing(path.parent) == [path.name]


def test_the_embedding_tables_have_the_contracts_columns_first(bench):
    expected = ["sample_id", "dataset_id", "model_name", "vector", "x", "y", "job_id"]
    with bench.database.read() as session:
        for dimension in (384, 768, 1024, 1536):
            columns = session.q(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
                schema.view_name(dimension),
            )
            assert [name for name, _ in columns][:7] == expected
            assert dict(columns)["vector"] == f"FLOAT[{dimension}]"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello world\n" * 1000, "not a DuckDB database"),
        (b"", "not a DuckDB database"),
        (b"x", "not a DuckDB database"),
    ],
    ids=["text", "empty", "one byte"],
)
def test_a_file_that_is_no_database_is_left_untouched(path, content, words):
    path.parent.mkdir()
    path.write_bytes(content)
    assert words in refusal(Database(path))
    assert path.read_bytes() == content
    assert listing(path.parent) == [path.name]


def test_another_programs_database_is_left_untouched(path):
    path.parent.mkdir()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE theirs (i INTEGER)")
    before = path.read_bytes()
    assert "another program" in refusal(Database(path))
    assert path.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused(path):
    database = Database(path)
    database.check()
    with database.transaction() as session:
        session.q("INSERT INTO migrations VALUES ('from the future')")
    database.close()
    assert "newer version" in refusal(Database(path))


def test_a_folder_in_the_files_place_is_named(path):
    path.mkdir(parents=True)
    assert "folder of that name" in refusal(Database(path))


def test_a_corrupt_write_ahead_log_is_refused_and_kept(path):
    write_without_closing(path)
    log = path.with_name(path.name + ".wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    assert "write-ahead log" in refusal(Database(path))
    assert log.read_bytes() == bytes(content)


def test_a_corrupt_file_is_refused_and_kept(path):
    bench = Workbench(path)
    bench.register(source_files(2000))
    bench.database.close()
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    path.write_bytes(content)
    assert "corrupt" in refusal(Database(path))
    assert path.read_bytes() == bytes(content)


def test_a_log_without_its_database_is_not_destroyed(path):
    write_without_closing(path)
    log = path.with_name(path.name + ".wal")
    content = log.read_bytes()
    path.rename(path.with_name("elsewhere"))
    assert "write-ahead log is there" in refusal(Database(path))
    assert listing(path.parent) == [log.name, "elsewhere"]
    assert log.read_bytes() == content


LOST = "DELETE FROM vectors_384 WHERE sample_id = 'img/1.jpg' AND job_id IN (SELECT id FROM jobs WHERE status = '{}')"
LOSSES = {
    "vectors": (LOST.format("complete"), "should have 4 vectors and has 3"),
    "staged vectors": (LOST.format("running"), "should have 2 staged vectors and has 1"),
    "samples": ("DELETE FROM samples WHERE sample_id = 'img/1.jpg'", "should have 4 samples and has 3"),
    "jobs": ("DELETE FROM jobs WHERE status = 'complete'", "job that made the vectors of dataset 'flowers' is missing"),
    "stage of a finished job": (
        "UPDATE jobs SET status = 'error', finished_at = created_at WHERE status = 'running'",
        "should have 0 staged vectors and has 2",
    ),
}


@pytest.mark.parametrize(("tampering", "words"), LOSSES.values(), ids=LOSSES)
def test_lost_rows_are_reported_when_the_database_opens(path, tampering, words):
    bench = Workbench(path)
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    claim = bench.start(dataset, force=True)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:2]))
    bench.database.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute(tampering)
        with pytest.raises(AssertionError):
            check_invariants(connection)
    database = Database(path)
    problems = database.check()
    assert any(words in problem for problem in problems)
    database.close()


def write_without_closing(path):
    """A database with a write-ahead log, as a killed writer leaves it."""
    bench = Workbench(path)
    bench.register(source_files(500))
    log = path.with_name(path.name + ".wal")
    content, database = log.read_bytes(), path.read_bytes()
    bench.database.close()
    path.write_bytes(database)
    log.write_bytes(content)
