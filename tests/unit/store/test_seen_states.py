"""What a reader has seen stays, whatever ends the process or fails afterwards."""

import signal
import subprocess
import sys

import pytest

from tests.unit.store.workbench import Workbench

ROWS = 110_000
"""DuckDB treats transactions of more than 100,000 changes in another way."""

REGISTER = f"""
import os, signal, sys, threading
from pathlib import Path
from tests.unit.store.workbench import Workbench, source_files

bench = Workbench(Path(sys.argv[1]))
# A checkpoint that begins with this very commit, and lasts.
bench.database._config |= {{"checkpoint_threshold": "1KB", "debug_checkpoint_scan_sleep_ms": "100"}}
scan_id = bench.datasets.begin_scan()
bench.datasets.put_scan(scan_id, 0, source_files({ROWS}))
bench.database.checkpoint()

def watch():
    while not bench.datasets.all():
        pass
    os.kill(os.getpid(), signal.SIGKILL)

# The reader comes while the commit runs: before, it would keep DuckDB from its checkpoint.
threading.Timer(float(sys.argv[2]), watch).start()
bench.datasets.register(scan_id, name="flowers", root="/r", format="folder", annotations=None)
threading.Event().wait()
"""


@pytest.mark.parametrize("late_s", [0.4, 1.2])
def test_a_large_transaction_that_was_seen_survives_a_kill(tmp_path, late_s):
    path = tmp_path / "data" / "constellate.duckdb"
    ended = subprocess.run([sys.executable, "-c", REGISTER, str(path), str(late_s)])
    assert ended.returncode == -signal.SIGKILL
    bench = Workbench(path)
    assert [dataset.sample_count for dataset in bench.datasets.all()] == [ROWS]
    bench.database.close()
