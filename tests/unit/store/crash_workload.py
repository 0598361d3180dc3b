"""A writer that works without end and tells what it was promised; run as a process that is killed.

Every line on standard output is one acknowledged change, as JSON, printed before the next call begins.
"""

import json
import resource
import signal
import sys
from pathlib import Path

from serve_app.errors import StoreUnavailable
from tests.invariants import fingerprint
from tests.unit.store.workbench import Workbench, block_of, source_files

FILES = source_files(96)
BLOCK = 16


def tell(**what):
    print(json.dumps(what), flush=True)


def regenerate_for_ever(bench):
    """Embed one dataset again and again, telling of every block and every swap."""
    dataset = bench.register(FILES)
    tell(dataset=dataset.id)
    generation = 0
    while True:
        generation += 1
        contents = {file.sample_id: f"{file.sample_id} of {generation}" for file in FILES}
        claim = bench.start(dataset, force=True)
        tell(job=claim.job.id, seq=bench.jobs.get(claim.job.id).seq, status="running")
        for number, start in enumerate(range(0, len(FILES), BLOCK), start=1):
            block = block_of(FILES[start : start + BLOCK], contents=contents)
            job = bench.vectors.put_block(claim.job.id, claim.attempt, number, block)
            tell(job=job.id, seq=job.seq, status=job.status)
        job = bench.vectors.commit(claim.job.id, claim.attempt)
        tell(job=job.id, seq=job.seq, status=job.status)


def run_out_of_disk(bench):
    """Fill the space there is in the middle of a job, tell what fails, then get space and finish the job."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    files = source_files(3000)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    with bench.database.read() as session:
        before = fingerprint(session, dataset.id)
    claim = bench.start(dataset, force=True)
    size = bench.database.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300_000, resource.RLIM_INFINITY))
    blocks = [block_of(files[start : start + 250]) for start in range(0, len(files), 250)]
    acked, refusal = 0, ""
    try:
        for number, block in enumerate(blocks, start=1):
            bench.vectors.put_block(claim.job.id, claim.attempt, number, block)
            acked = number
        bench.vectors.commit(claim.job.id, claim.attempt)
    except StoreUnavailable as error:
        refusal = error.detail
    bench.clock.now += 60
    counted = bench.jobs.get(claim.job.id).processed
    with bench.database.read() as session:
        same = fingerprint(session, dataset.id) == before
    tell(acked=acked * 250, counted=counted, refusal=refusal, same=same)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    bench.clock.now += 60
    for number, block in enumerate(blocks, start=1):
        bench.vectors.put_block(claim.job.id, claim.attempt, number, block)
    tell(status=bench.vectors.commit(claim.job.id, claim.attempt).status)
    bench.database.close()


if __name__ == "__main__":
    work = {"regenerate": regenerate_for_ever, "disk": run_out_of_disk}[sys.argv[1]]
    work(Workbench(Path(sys.argv[2])))
