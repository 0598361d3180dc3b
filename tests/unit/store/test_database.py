"""Opening, failing, reopening and closing the one file."""

import re
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

import serve_app.store
from serve_app.errors import ServiceError, StoreUnavailable
from serve_app.store import schema
from serve_app.store.database import CHECKPOINT_RETRY_S, FIRST_RETRY_S, LAST_RETRY_S, Database
from serve_app.store.failures import reason
from tests.invariants import check_invariants, documented_queries, fingerprint
from tests.unit.store.workbench import Clock, Workbench, block_of, source_files


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(database):
    """What a database that cannot be used says."""
    with pytest.raises(StoreUnavailable) as caught, database.read():
        pass
    return caught.value.detail


def fail_fatally(database, error=duckdb.FatalException, *, during="SELECT 1"):
    """A transaction in which DuckDB gives up its instance."""

    def work():
        with database.transaction() as session:
            session.q(during)
            raise error("Failed to create checkpoint because of error: No space left on device")

    with pytest.raises(StoreUnavailable, match="disk is full"):
        work()


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
                schema.embeddings_table(dimension),
            )
            assert [name for name, _ in columns][:7] == expected
            assert dict(columns)["vector"] == f"FLOAT[{dimension}]"


def test_close_leaves_one_file_that_stock_duckdb_reads(path):
    bench = Workbench(path)
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.database.close()
    bench.database.close()
    assert listing(path.parent) == [path.name]
    check_invariants(path)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM embeddings_384").fetchall() == [(3,)]


def test_a_closed_database_says_so(path):
    database = Database(path)
    database.check()
    database.close()
    assert "closed" in refusal(database)
    with pytest.raises(StoreUnavailable), database.transaction():
        pass
    database.checkpoint()


def test_what_was_written_is_there_after_reopening(path):
    bench = Workbench(path)
    dataset = bench.register(source_files(3))
    bench.database.close()
    bench = Workbench(path)
    assert bench.datasets.all() == [dataset]
    bench.database.close()


def test_a_database_in_use_by_another_process_names_its_pid(path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from serve_app.store.database import Database\n"
            "database = Database(Path(sys.argv[1])); database.check(); print('open', flush=True); sys.stdin.read()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "open\n"
        clock = Clock()
        database = Database(path, clock=clock)
        assert f"in use by another process (pid {holder.pid})" in refusal(database)
        holder.communicate("", timeout=240)
        clock.now += FIRST_RETRY_S
        assert database.check() == []
        database.close()
    finally:
        holder.kill()
        holder.wait()


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


def test_a_file_that_was_moved_away_is_missed_and_not_made_anew(path):
    bench = Workbench(path)
    dataset = bench.register(source_files(1))
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    assert "moved, deleted or replaced" in refusal(bench.database)
    with pytest.raises(StoreUnavailable, match="moved"):
        bench.datasets.begin_scan()
    assert not path.exists()
    elsewhere.rename(path)
    assert bench.datasets.all() == [dataset]
    bench.database.close()


def test_closing_never_touches_a_file_that_took_the_place(path):
    bench = Workbench(path)
    bench.register(source_files(1))
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(b"somebody else's")
    log = path.with_name(path.name + ".wal")
    log.write_bytes(b"somebody else's log")
    bench.database.close()
    assert (path.read_bytes(), log.read_bytes()) == (b"somebody else's", b"somebody else's log")


def test_a_failing_transaction_leaves_nothing(bench):
    def work():
        with bench.database.transaction() as session:
            session.q("UPDATE meta SET checks = 99")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    with bench.database.read() as session:
        assert session.value("SELECT checks FROM meta") == 0


def test_a_read_cannot_write(bench):
    with pytest.raises(ServiceError), bench.database.read() as session:
        session.q("UPDATE meta SET checks = 99")


def test_a_read_sees_one_snapshot(bench):
    bench.database.check()
    with bench.database.read() as session:
        before = session.value("SELECT checks FROM meta")
        bench.database.check()
        assert session.value("SELECT checks FROM meta") == before
    with bench.database.read() as session:
        assert session.value("SELECT checks FROM meta") == before + 1


def test_a_refused_statement_tells_the_caller_no_sql(bench):
    with pytest.raises(ServiceError) as caught, bench.database.read() as session:
        session.q("SELECT secret FROM nowhere")
    assert "nowhere" not in caught.value.detail


@pytest.mark.parametrize("error", [duckdb.FatalException, duckdb.InternalException], ids=lambda error: error.__name__)
def test_after_a_fatal_error_the_next_call_opens_the_file_again(bench, error):
    dataset = bench.register(source_files(2))
    fail_fatally(bench.database, error, during="UPDATE datasets SET name = 'half done'")
    assert bench.datasets.all() == [dataset]
    assert bench.database.check() == []


def test_the_file_is_opened_again_only_when_every_session_of_the_old_instance_is_over(bench):
    bench.database.check()

    def read_on():
        with bench.database.read() as reader:
            fail_fatally(bench.database)
            assert "opened again" in refusal(bench.database)
            reader.q("SELECT checks FROM meta")

    with pytest.raises(StoreUnavailable, match="closed meanwhile"):
        read_on()
    assert bench.database.check() == []


def test_failed_openings_are_retried_less_and_less_often(path):
    clock = Clock()
    database = Database(path, clock=clock)
    path.mkdir(parents=True)
    told = refusal(database)
    for delay_s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LAST_RETRY_S, LAST_RETRY_S):
        if path.is_dir():
            path.rmdir()
            path.write_bytes(b"not a database")
        else:
            path.unlink()
            path.mkdir()
        clock.now += 0.9 * delay_s
        assert refusal(database) == told  # nobody has looked again
        clock.now += 0.1 * delay_s + 1e-9
        assert refusal(database) != told
        told = refusal(database)


def test_a_second_writer_is_noticed_when_the_file_is_opened_again(path):
    database = Database(path)
    database.check()
    fail_fatally(database)
    other = Database(path)
    other.check()
    other.close()
    with pytest.raises(StoreUnavailable, match="Another writer"):
        database.check()
    with database.read() as session:
        assert session.value("SELECT writer_epoch FROM meta") == 2
    database.close()


def test_each_writer_raises_the_epoch_once(path):
    for expected in (1, 2, 3):
        database = Database(path)
        database.check()
        database.check()
        with database.read() as session:
            assert session.value("SELECT writer_epoch FROM meta") == expected
        database.close()


def test_a_second_database_object_on_an_open_file_is_refused(bench):
    bench.database.check()
    assert "still open in this process" in refusal(Database(bench.database.path))
    assert bench.database.check() == []


LOSSES = {
    "vectors": ("DELETE FROM embeddings_384 WHERE sample_id = 'img/1.jpg'", "should have 4 vectors and has 3"),
    "staged vectors": ("DELETE FROM stage_384 WHERE sample_id = 'img/1.jpg'", "should have 2 staged vectors and has 1"),
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


def test_every_invariant_is_written_down_as_a_query():
    assert {name for name, _, _ in documented_queries()} == {f"I{i}" for i in range(1, 9)}


BROKEN = {
    "I4 ": "DELETE FROM embeddings_384",
    "I1": "INSERT INTO embeddings_384 SELECT * FROM embeddings_384 LIMIT 1",
    "I2": "UPDATE embeddings_384 SET job_id = 'other' WHERE sample_id = 'img/0.jpg'",
    "I3": "UPDATE embeddings_384 SET vector = (SELECT array_agg('nan'::FLOAT)::FLOAT[384] FROM range(384))",
    "I4": "UPDATE jobs SET skipped = skipped + 1",
    "I5": "UPDATE jobs SET status = 'lost'",
    "I6": "INSERT INTO stage_384 SELECT 'nobody', sample_id, vector, content_hash, 1, 1 FROM embeddings_384",
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
        session.q("UPDATE embeddings_384 SET mtime_ns = mtime_ns + 1 WHERE sample_id = 'img/1.jpg'")
    with bench.database.read() as session:
        assert fingerprint(session, dataset.id) != before


def test_a_failed_checkpoint_is_made_up_for_by_the_next_check(bench):
    bench.register(source_files(1))
    log = bench.database.path.with_name(bench.database.path.name + ".wal")
    elsewhere = bench.database.path.with_name("elsewhere")
    bench.database.path.rename(elsewhere)
    bench.database.checkpoint()
    elsewhere.rename(bench.database.path)
    assert log.exists()
    bench.database.check()
    assert not log.exists()


def test_a_checkpoint_waits_for_a_short_read_and_new_reads_wait_for_it(bench, monkeypatch):
    monkeypatch.setattr("serve_app.store.database.QUIET_S", 60.0)  # short, also where threads get their turn late
    bench.register(source_files(1))
    log = bench.database.path.with_name(bench.database.path.name + ".wal")
    reading, read_on = threading.Event(), threading.Event()

    def read():
        with bench.database.read() as session:
            session.q("SELECT checks FROM meta")
            reading.set()
            read_on.wait()

    reader = threading.Thread(target=read)
    reader.start()
    reading.wait()
    bench.database.check()  # an update that the reader must not see
    folding = threading.Thread(target=bench.database.checkpoint)
    folding.start()
    while not bench.database._holding_back:
        pass
    late = threading.Thread(target=bench.datasets.all)
    late.start()
    read_on.set()
    for thread in (reader, folding, late):
        thread.join()
    assert not log.exists()


def test_a_long_read_puts_a_checkpoint_off_and_a_later_write_makes_up_for_it(bench):
    bench.register(source_files(1))
    log = bench.database.path.with_name(bench.database.path.name + ".wal")
    with bench.database.read() as session:
        session.q("SELECT checks FROM meta")
        bench.database.check()
        bench.database.checkpoint()
        assert log.exists()
        assert bench.datasets.all()  # nobody is held back for longer than the attempt
    bench.datasets.begin_scan()
    assert log.exists()  # nor at every write
    bench.clock.now += CHECKPOINT_RETRY_S
    bench.datasets.begin_scan()
    assert not log.exists()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("Could not set lock on file: Conflicting lock is held in python (PID 42)", "(pid 42)"),
        ("Could not set lock on file: Conflicting lock is held", "(unknown pid)"),
        ("Failed to commit: Could not write file: No space left on device", "disk is full"),
        ("Cannot open file: Permission denied", "permission"),
        ("Cannot open file: Read-only file system", "read-only"),
        ("fsync failed!", "failed to store"),
        ("something /secret/path SELECT 1", "DuckDB reports IOException"),
    ],
)
def test_reasons_are_for_people(message, words):
    assert words in reason(duckdb.IOException(message))
    assert "/secret" not in reason(duckdb.IOException(message))


def test_readers_and_a_writer_share_the_file_from_many_threads(bench):
    files = source_files(20)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    stop, jobs_seen, failures = threading.Event(), set(), []

    def read():
        try:
            while not stop.is_set():
                found = bench.vectors.read(dataset.id)
                assert len(found.sample_ids) == 20
                jobs_seen.add(found.job_id)
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(5):
        bench.embed(dataset, files)
    while not (jobs_seen or failures):
        time.sleep(0.01)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []


@pytest.mark.slow
@pytest.mark.parametrize("n_times", [6, pytest.param(20, marks=pytest.mark.every)])
def test_regenerations_under_a_polling_reader_keep_the_file_small(bench, monkeypatch, n_times):
    monkeypatch.setattr("serve_app.store.database.QUIET_S", 60.0)
    files = source_files(1500)
    dataset = bench.register(files)
    stop = threading.Event()

    def poll():
        while not stop.is_set():
            bench.vectors.status(dataset.id)
            bench.jobs.latest([(dataset.id, "embed")])

    bench.embed(dataset, files, force=True)
    reader = threading.Thread(target=poll)
    reader.start()
    for _ in range(n_times):
        bench.embed(dataset, files, force=True)
    stop.set()
    reader.join()
    live = 1500 * 384 * 4
    assert bench.database.path.stat().st_size < 3 * live


def test_no_statement_leaves_its_result_open():
    sources = Path(serve_app.store.__file__).parent.glob("*.py")
    offenders = [path.name for path in sources if re.search(r"fetchone\(|fetchmany\(|executemany\(", path.read_text())]
    assert offenders == []


def write_without_closing(path):
    """A database with a write-ahead log, as a killed writer leaves it."""
    bench = Workbench(path)
    bench.register(source_files(500))
    log = path.with_name(path.name + ".wal")
    content, database = log.read_bytes(), path.read_bytes()
    bench.database.close()
    path.write_bytes(database)
    log.write_bytes(content)
