"""A writer in a process of its own, to be killed, or to have its disk taken away."""

import asyncio
import json
import os
import resource
import signal
import sys
from pathlib import Path

from serve_app.errors import StoreUnavailable
from tests.invariants import fingerprint
from tests.unit.store.story import Story
from tests.unit.store.workbench import Workbench, block_of, source_files


def live(path, acknowledged):
    """Live the story; each acknowledged step is on disk in a file of ours before the next begins."""
    log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(position):
        os.write(log, f"{position + 1}\n".encode())
        os.fsync(log)

    asyncio.run(Story(path).live(0, acknowledge))


def run_out_of_disk(bench, moment):
    """Let the space end while a job stages, or in its commit; tell what fails, then get space and finish the job."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    files = source_files(3000)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    with bench.database.read() as session:
        before = fingerprint(session, dataset.id)
    claim = bench.start(dataset, force=True)
    blocks = [block_of(files[start : start + 250]) for start in range(0, len(files), 250)]

    def end_the_space():
        # Both a commit and blocks that fill no row group go into the log.
        size = bench.database.path.with_name(bench.database.path.name + ".wal").stat().st_size
        room = 300_000 if moment == "stage" else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))

    def finish():
        for number, block in enumerate(blocks, start=1):
            bench.vectors.put_block(claim.job.id, claim.attempt, number, block)
            told["acked"] = number * 250
        if moment == "commit":
            end_the_space()
        return bench.vectors.commit(claim.job.id, claim.attempt)

    told = {"acked": 0, "refusal": ""}
    if moment == "stage":
        end_the_space()
    try:
        finish()
    except StoreUnavailable as error:
        told["refusal"] = error.detail
    bench.clock.now += 60
    told["counted"] = bench.jobs.get(claim.job.id).processed
    with bench.database.read() as session:
        told["same"] = fingerprint(session, dataset.id) == before
    print(json.dumps(told), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    bench.clock.now += 60
    moment = "never"
    print(json.dumps({"status": finish().status}), flush=True)
    bench.database.close()


if __name__ == "__main__":
    if sys.argv[1] == "story":
        live(Path(sys.argv[2]), sys.argv[3])
    else:
        run_out_of_disk(Workbench(Path(sys.argv[2])), sys.argv[1])
