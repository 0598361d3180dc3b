"""What a reader has seen stays, whatever ends the process or fails afterwards."""

import signal
import subprocess
import sys
from contextlib import suppress

import duckdb
import pytest

from serve_app.errors import StoreUnavailable
from serve_app.store.session import Session
from tests.unit.store.workbench import Workbench, block_of, source_files

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


@pytest.mark.parametrize("late_s", [0.4, pytest.param(1.2, marks=pytest.mark.every)])
def test_a_large_transaction_that_was_seen_survives_a_kill(tmp_path, late_s):
    path = tmp_path / "data" / "constellate.duckdb"
    ended = subprocess.run([sys.executable, "-c", REGISTER, str(path), str(late_s)])
    assert ended.returncode == -signal.SIGKILL
    bench = Workbench(path)
    assert [dataset.sample_count for dataset in bench.datasets.all()] == [ROWS]
    bench.database.close()


class Failing:
    """Lets the n-th statement of a session fail for lack of memory, before or after DuckDB has run it."""

    def __init__(self, monkeypatch, n, *, after):
        self.n_statements = 0
        real = Session.q

        def q(session, sql, *parameters):
            self.n_statements += 1
            fails = self.n_statements == n
            if fails and not after:
                raise duckdb.OutOfMemoryException("Out of Memory Error")
            rows = real(session, sql, *parameters)
            if fails:
                raise duckdb.OutOfMemoryException("Out of Memory Error")
            return rows

        monkeypatch.setattr(Session, "q", q)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_lack_of_memory_at_any_statement_of_the_commit_takes_nothing_back(bench, monkeypatch, after):
    """The statements of the commit and of the checkpoint, one after another: seen states only ever go forward."""
    files = source_files(3)
    dataset = bench.register(files)
    n, is_through = 0, False
    while not is_through:
        n += 1
        claim = bench.start(dataset, force=True)
        bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files))
        with monkeypatch.context() as patch:
            failing = Failing(patch, n, after=after)
            with suppress(StoreUnavailable):
                bench.vectors.commit(claim.job.id, claim.attempt)
            is_through = failing.n_statements < n
        seen = bench.jobs.get(claim.job.id).status, bench.vectors.status(dataset.id).job_id
        assert (seen[0] == "complete") == (seen[1] == claim.job.id)
        assert bench.vectors.commit(claim.job.id, claim.attempt).status == "complete"
        assert bench.vectors.status(dataset.id).job_id == claim.job.id
    assert n > 10
