"""What a killed writer leaves, and what a full disk does: nothing acknowledged is lost, nothing is half done."""

import json
import os
import subprocess
import sys

import pytest

from tests.invariants import check_invariants
from tests.unit.store.workbench import Workbench

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


@pytest.mark.parametrize("acks", [1, 2, 5, 8, 9, 10, 17, 26, 33, 50])
def test_a_writer_killed_between_acks_has_kept_all_of_them(path, start, acks):
    process = start("regenerate")
    told = [json.loads(process.stdout.readline()) for _ in range(acks)]
    process.kill()
    told += [json.loads(line) for line in process.stdout.read().splitlines() if line.endswith("}")]
    process.wait()
    dataset_id, told = told[0]["dataset"], told[1:]

    bench = Workbench(path)
    assert bench.database.check() == []
    with bench.database.read() as session:
        check_invariants(session)
    stored = {job.id: job for job in bench.jobs.all(limit=1000)}
    last = {change["job"]: change for change in told}
    for job_id, change in last.items():
        assert stored[job_id].seq in (change["seq"], change["seq"] + 1)
        assert change["status"] in (stored[job_id].status, "running")
    assert len(stored) - len(last) in (0, 1)  # at most one change was in doubt
    complete = [job for job in stored.values() if job.status == "complete"]
    status = bench.vectors.status(dataset_id)
    assert status.job_id == (max(complete, key=lambda job: job.created_at).id if complete else None)
    assert status.embedding_count == (status.sample_count if complete else 0)
    running = [job for job in stored.values() if job.status == "running"]
    if running:
        assert bench.jobs.claim("another runner", holding=[], lease_s=30).job.id == running[0].id
    bench.database.close()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    check_invariants(path)


def test_a_full_disk_fails_the_call_keeps_the_old_vectors_and_heals(path, start):
    process = start("disk")
    full, healed = (json.loads(line) for line in process.communicate(timeout=120)[0].splitlines())
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
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "permission" in result.stdout, result.stderr
    assert sorted((entry.name, entry.stat().st_size) for entry in path.parent.iterdir()) == before
