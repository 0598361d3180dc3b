"""A disk that is full or forbidden: the call fails, the old vectors stay, and nothing more is needed than space."""

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


@pytest.mark.parametrize("moment", ["stage", "swap"])
def test_a_full_disk_fails_the_call_keeps_the_old_vectors_and_heals(path, start, moment):
    process = start(moment)
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
