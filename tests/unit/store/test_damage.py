"""What is amiss with the file or the process around it: told in words, nothing made worse, over when its cause is."""

import random
import resource
import struct
from contextlib import contextmanager
from datetime import timedelta

import duckdb
import pytest

from serve_app.errors import StoreUnavailable
from serve_app.store import job_rows
from serve_app.store.database import LAST_RETRY_S, Database
from tests.unit.store.snapshot import snapshot
from tests.unit.store.workbench import Workbench, block_of, source_files


@pytest.fixture(scope="module")
def left_by_a_killed_writer(tmp_path_factory):
    """The bytes of a file and its log, and what each of the last commits made of the database."""
    bench = Workbench(tmp_path_factory.mktemp("killed") / "constellate.duckdb")
    files = source_files(40)
    claim = bench.start(bench.register(files))
    states = [content(bench.database)]
    for number in range(1, 5):
        bench.vectors.put_block(claim.job.id, claim.attempt, number, block_of(files[number * 8 : number * 8 + 8]))
        states.append(content(bench.database))
    path = bench.database.path
    left = path.read_bytes(), path.with_name(path.name + ".wal").read_bytes()
    bench.database.close()
    return *left, states


@pytest.fixture
def killed(path, left_by_a_killed_writer):
    """A database with its log as a killed writer left them, and those states."""
    file, changes, states = left_by_a_killed_writer
    log = path.with_name(path.name + ".wal")
    path.parent.mkdir()
    path.write_bytes(file)
    log.write_bytes(changes)
    return path, log, states


def content(database):
    with database.read() as session:
        return snapshot(session)


def refusal(database):
    with pytest.raises(StoreUnavailable) as caught:
        database.check()
    return caught.value.detail


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_in_the_log_is_noticed_and_the_log_kept(killed, seed):
    path, log, _ = killed
    damaged = bytearray(log.read_bytes())
    bit = random.Random(seed).randrange(8 * len(damaged))
    damaged[bit // 8] ^= 1 << bit % 8
    log.write_bytes(damaged)
    before = path.read_bytes()
    assert "write-ahead log" in refusal(Database(path))
    assert (path.read_bytes(), log.read_bytes()) == (before, bytes(damaged))


@pytest.mark.parametrize("seed", range(10))
def test_a_log_that_was_cut_off_opens_as_it_was_after_some_commit(killed, seed):
    path, log, states = killed
    whole = log.read_bytes()
    log.write_bytes(whole[: random.Random(seed).randrange(len(whole) // 2, len(whole))])
    database = Database(path)
    assert content(database) in states
    database.close()


def test_a_file_of_another_version_of_duckdb_is_read(path):
    bench = Workbench(path)
    files = source_files(5)
    bench.embed(bench.register(files), files)
    held = content(bench.database)
    bench.database.close()
    older = path.with_name("older")
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS new (READ_ONLY)")
        connection.execute(f"ATTACH '{older}' AS old (STORAGE_VERSION 'v1.0.0')")
        connection.execute("COPY FROM DATABASE new TO old")
    older.rename(path)
    database = Database(path)
    assert content(database) == held
    assert database.check() == []
    database.close()


def test_a_file_of_a_version_yet_to_come_is_refused_and_kept(path):
    bench = Workbench(path)
    bench.register(source_files(1))
    bench.database.close()
    later = bytearray(path.read_bytes())
    assert header_checksum(later) == later[:8]
    later[12:20] = (10_000).to_bytes(8, "little")
    later[:8] = header_checksum(later)
    path.write_bytes(later)
    assert "written by another version of DuckDB" in refusal(Database(path))
    assert path.read_bytes() == bytes(later)


def header_checksum(file):
    """DuckDB's checksum of the header that the file begins with."""
    result = 5381
    for (word,) in struct.iter_unpack("<Q", file[8:4096]):
        result ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return result.to_bytes(8, "little")


@contextmanager
def no_further_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_without_file_descriptors_says_so_and_recovers(bench):
    dataset = bench.register(source_files(2))
    bench.database.checkpoint()  # the next commit needs a new log
    with no_further_files():
        assert "too many open files" in refusal(bench.database)
    bench.clock.now += LAST_RETRY_S
    assert bench.database.check() == []
    assert bench.datasets.all() == [dataset]


@pytest.mark.parametrize("shift_s", [-3600, 86_400, -1_700_000_000], ids=["an hour back", "a day on", "1970"])
def test_a_wall_clock_that_jumps_ends_no_lease_and_reorders_no_job(bench, monkeypatch, shift_s):
    files = source_files(2)
    dataset = bench.register(files)
    first, _ = bench.embed(dataset, files)
    claim = bench.start(dataset, force=True)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:1]))
    moved = job_rows.utc_now() + timedelta(seconds=shift_s)
    monkeypatch.setattr(job_rows, "utc_now", lambda: moved)
    bench.clock.now += 29
    assert bench.jobs.claim("another", holding=[], lease_s=30) is None  # the lease of 30 s is the monotonic clock's
    bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(files[1:]))
    assert bench.jobs.get(claim.job.id).rate == pytest.approx(1 / 29)
    second = bench.vectors.commit(claim.job.id, claim.attempt)
    third, _ = bench.embed(dataset, files)
    assert [job.id for job in bench.jobs.all(limit=3)] == [third.id, second.id, first.id]
    assert bench.jobs.latest([(dataset.id, "embed")])[0].id == third.id
