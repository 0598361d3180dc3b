"""What the database keeps in memory is bounded, however much a job stages."""

import subprocess
import sys

import pytest

ROWS = 12_000
DIMENSION = 1536
"""74 MB of vectors."""
GROWTH_MB = 300
"""The process below grew by 200 MB, opening the database included, and without a bound by 430 MB."""

JOB = f"""
import sys, threading, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from serve_app.records import Block, FileStamp
from tests.unit.store.workbench import CARD, Workbench, source_files

def memory_mb():
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0]) / 1024

bench = Workbench(Path(sys.argv[1]))
before = peak = memory_mb()

def watch():
    global peak
    while True:
        peak = max(peak, memory_mb())
        time.sleep(0.02)

threading.Thread(target=watch, daemon=True).start()
files = source_files({ROWS})
dataset = bench.register(files)
bench.jobs.create(dataset.id, "embed", model_name="m")
claim = bench.jobs.claim("r", holding=[], lease_s=600)
bench.jobs.begin(claim.job.id, claim.attempt, replace(CARD, dimension={DIMENSION}))
random = np.random.default_rng(0)
for block_no, start in enumerate(range(0, {ROWS}, 250), start=1):
    ids = [file.sample_id for file in files[start : start + 250]]
    stamps = [FileStamp(f"{{start + i:064d}}", 1, 1) for i in range(len(ids))]
    vectors = random.standard_normal((len(ids), {DIMENSION}), np.float32)
    block = Block(ids, vectors, stamps, space_key=CARD.space_key)
    bench.vectors.put_block(claim.job.id, claim.attempt, block_no, block)
assert bench.vectors.commit(claim.job.id, claim.attempt).status == "complete"
print(peak - before)
"""


@pytest.mark.every
def test_a_large_job_does_not_make_the_writer_large(tmp_path):
    # In a process of its own: what others here have allocated and freed would be used again.
    run = subprocess.run(
        [sys.executable, "-c", JOB, str(tmp_path / "data" / "constellate.duckdb")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout.splitlines()[-1]) < GROWTH_MB
