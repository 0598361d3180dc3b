"""A disk that is full or forbidden: the call fails, the old vectors stay, and nothing more is needed than space."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from serve_app.errors import DiskFull, StoreUnavailable
from serve_app.store import staging
from tests.invariants import check_invariants
from tests.unit.store.workbench import CARD, Workbench, source_files

pytestmark = pytest.mark.faults


@pytest.fixture
def start(path):
    """Starts the workload and ends it with the test."""
    processes = []

    def start_work(name, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.store.crash_workload", name, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
        processes.append(process)
        return process

    yield start_work
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("moment", ["stage", "commit"])
def test_a_full_disk_fails_the_call_keeps_the_old_vectors_and_heals(path, start, moment):
    process = start(moment)
    full, healed = (json.loads(line) for line in process.communicate(timeout=240)[0].splitlines())
    assert process.returncode == 0
    assert any(words in full["refusal"] for words in ("size limit", "disk is full")), full["refusal"]
    assert full["same"]
    assert full["counted"] - full["acked"] in (0, 250)
    assert healed["status"] == "complete"
    check_invariants(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root to lose the right to write")
@pytest.mark.parametrize("exists", [False, True], ids=["no file", "file"])
def test_missing_permission_is_named_and_nothing_is_changed(path, exists):
    path.parent.mkdir(mode=0o755)
    if exists:
        bench = Workbench(path)
        bench.database.check()
        bench.database.close()
        path.chmod(0o644)
    before = sorted((entry.name, entry.stat().st_size) for entry in path.parent.iterdir())
    code = (
        "import os, sys; from pathlib import Path; from serve_app.store.database import Database\n"
        "from serve_app.errors import StoreUnavailable\n"
        "os.chdir(sys.argv[1]); os.setgid(65534); os.setuid(65534)\n"
        "try: Database(Path(sys.argv[2])).check()\n"
        "except StoreUnavailable as error: print(error.detail)"
    )
    command = [sys.executable, "-c", code, str(path.parent), path.name]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert "permission" in result.stdout, result.stderr
    assert sorted((entry.name, entry.stat().st_size) for entry in path.parent.iterdir()) == before


def test_a_job_for_which_there_is_no_room_is_refused_before_anything_is_computed(bench, monkeypatch):
    files = source_files(1000)
    dataset = bench.register(files)
    job = bench.jobs.create(dataset.id, "embed", model_name=CARD.name)
    claim = bench.jobs.claim("runner", holding=[], lease_s=30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    with pytest.raises(DiskFull, match=r"1,000 vectors need about 2 MB .* 1 MB are free"):
        bench.jobs.begin(job.id, claim.attempt, CARD)
    assert bench.jobs.get(job.id).seq == claim.job.seq
    monkeypatch.undo()
    assert bench.jobs.begin(job.id, claim.attempt, CARD).status == "running"


def test_space_that_is_free_inside_the_file_counts(bench, monkeypatch):
    files = source_files(3000)
    dataset = bench.register(files)
    for _ in range(3):  # DuckDB frees the blocks of deleted rows when it writes the next ones beside them
        bench.delete_retired()
        bench.embed(dataset, files, force=True)
    job = bench.jobs.create(dataset.id, "embed", model_name=CARD.name, force=True)
    claim = bench.jobs.claim("runner", holding=[], lease_s=30)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(StoreUnavailable, match="is being freed"):
        bench.jobs.begin(job.id, claim.attempt, CARD)
    bench.delete_retired()
    with bench.database.read() as session:
        within = session.value(
            "SELECT free_blocks * block_size FROM pragma_database_size() WHERE database_name = current_database()"
        )
    monkeypatch.setattr(staging, "COPIES", 4.0)
    needed = int(4.0 * 3000 * (4 * 384 + 128))
    assert 0 < within < needed
    for free, fits in ((needed - within - 1, False), (needed - within, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        if fits:
            bench.jobs.begin(job.id, claim.attempt, CARD)
        else:
            with pytest.raises(DiskFull):
                bench.jobs.begin(job.id, claim.attempt, CARD)
