"""Sessions on the one file, failing, reopening and closing it."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

import serve_app.store
from serve_app.errors import ServiceError, StoreUnavailable
from serve_app.store.database import CHECKPOINT_RETRY_S, FIRST_RETRY_S, LAST_RETRY_S, Database
from tests.invariants import check_invariants
from tests.unit.store.workbench import Clock, Workbench, listing, refusal, source_files
from tests.whole_set import read_now


def fail_fatally(database, error=duckdb.FatalException, *, during="SELECT 1"):
    """A transaction in which DuckDB gives up its instance."""

    def work():
        with database.transaction() as session:
            session.q(during)
            raise error("Failed to create checkpoint because of error: No space left on device")

    with pytest.raises(StoreUnavailable, match="disk is full"):
        work()


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


def test_readers_and_a_writer_share_the_file_from_many_threads(bench):
    files = source_files(20)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    stop, jobs_seen, failures = threading.Event(), set(), []

    def read():
        try:
            while not stop.is_set():
                found = read_now(bench.vectors, dataset.id)
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
        bench.delete_retired()
    stop.set()
    reader.join()
    live = 1500 * 384 * 4
    assert bench.database.path.stat().st_size < 3 * live


def test_no_statement_leaves_its_result_open():
    sources = Path(serve_app.store.__file__).parent.glob("*.py")
    offenders = [path.name for path in sources if re.search(r"fetchone\(|fetchmany\(|executemany\(", path.read_text())]
    assert offenders == []
