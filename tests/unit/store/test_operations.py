"""Figures, and backups: whole, consistent, written beside running work, and a database to start from."""

import shutil
import threading
import time

import duckdb
import pytest

from serve_app.errors import Conflict, StoreUnavailable
from serve_app.store.operations import PARTIAL, Backups, Health
from tests.invariants import check_invariants, fingerprint
from tests.unit.store.workbench import Workbench, source_files


def test_figures_count_jobs_by_status_and_bytes_on_disk(bench, path):
    bench.jobs.create(bench.register(source_files(2)).id, "embed", model_name="m")
    figures = Health(bench.database).figures()
    assert figures.jobs == {"running": 1, "complete": 0, "error": 0, "cancelled": 0}
    assert figures.writer_epoch == 1
    assert figures.file_bytes > path.stat().st_size > 0


def test_a_backup_holds_what_the_database_holds(bench, path):
    files = source_files(20)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    made = Backups(bench.database).create()
    with bench.database.read() as session:
        before = fingerprint(session, dataset.id)
    check_invariants(made.path)
    with duckdb.connect(made.path) as copy:
        assert fingerprint(copy, dataset.id) == before
        assert copy.execute("SELECT name FROM migrations").fetchall()
    assert made.size_bytes > 0
    assert [file.suffix for file in (path.parent / "backups").iterdir()] == [".duckdb"]


@pytest.mark.parametrize("n_backups", [6, pytest.param(20, marks=pytest.mark.every)])
def test_a_backup_beside_writes_is_one_moment_of_them(bench, n_backups):
    """One in 13 failed on a busy machine: `CHECKPOINT` refused because of the writes to the database itself."""
    stop = threading.Event()
    n_sets = [0]

    def work():
        for i in range(1000):
            if stop.is_set():
                return
            files = source_files(7, prefix=f"set{i}")
            bench.embed(bench.register(files, name=f"set {i}"), files)
            n_sets[0] = i + 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        paths = [Backups(bench.database).create().path for _ in range(n_backups)]
        while not n_sets[0]:
            time.sleep(0.01)
    finally:
        stop.set()
        worker.join()
    for path in paths:
        check_invariants(path)


def test_a_service_starts_from_a_backup(bench, tmp_path):
    files = source_files(5)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    made = Backups(bench.database).create()
    restored = tmp_path / "restored" / "constellate.duckdb"
    restored.parent.mkdir()
    shutil.copy(made.path, restored)
    other = Workbench(restored)
    assert other.vectors.status(dataset.id).embedding_count == 5
    assert other.database.check() == []
    other.register(source_files(1), name="new")
    other.database.close()


def test_what_a_broken_off_backup_left_is_swept_away(bench):
    bench.register(source_files(1))
    bench.database.backups.mkdir()
    (bench.database.backups / f"constellate-old.duckdb{PARTIAL}").write_bytes(b"half")
    Backups(bench.database).create()
    assert not list(bench.database.backups.glob(f"*{PARTIAL}*"))


def test_a_full_disk_and_a_second_backup_are_refused(bench, monkeypatch):
    bench.register(source_files(1))
    backups = Backups(bench.database)
    with backups._one_at_a_time, pytest.raises(Conflict):
        backups.create()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(StoreUnavailable, match="no room"):
        backups.create()


def test_sql_reaches_no_other_file(bench, tmp_path):
    bench.register(source_files(1))
    (tmp_path / "x.csv").write_text("a\n1\n")
    with bench.database.autocommit() as session:
        for statement in (
            f"ATTACH '{tmp_path}/evil.duckdb'",
            f"FROM '{tmp_path}/x.csv'",
            f"COPY (SELECT 1) TO '{tmp_path}/y.csv'",
            "SET allowed_directories = ['/']",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                session.q(statement)
