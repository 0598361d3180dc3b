"""A load step, second by second: replicas, images committed, rate. `python -m benchmarks.autoscaling --images FOLDER`.

Starts a service, waits until it is idle with one replica, runs one job, and watches until the replicas have gone
back to one. Replicas are counted by the names of the service's processes, as an operator would with `ps`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.checkpoints import ARCHITECTURES, random_checkpoint
from benchmarks.throughput import running_service
from serve_app.service_record import ServiceRecord

TITLE = "ray::ServeReplica:embedder:DinoV2"
PATIENCE_S = 150


def n_replicas(pid: int) -> int:
    """DinoV2 replicas that run below a process."""
    titles = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            titles.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return sum(title.startswith(TITLE) for title in titles)


def await_one_replica(pid: int) -> None:
    """Wait until idleness has taken the replicas of the start down to one."""
    deadline = time.monotonic() + PATIENCE_S
    while n_replicas(pid) != 1:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{n_replicas(pid)} replicas are left after {PATIENCE_S} s without work")
        time.sleep(1)


def trace(checkpoint: Path, images: Path, folder: Path, interval_s: float) -> list[dict[str, float | int | str]]:
    """One row an interval, from the POST until one replica is left."""
    rows: list[dict[str, float | int | str]] = []
    with running_service(checkpoint, images, "fp32", folder) as client:
        record = ServiceRecord.read(folder / "data-fp32")
        if record is None:
            raise RuntimeError("the service has left no record of itself")
        dataset_id = client.register("step", images)["id"]
        await_one_replica(record.pid)
        job_id = client.generate(dataset_id, force=True)
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE_S:
            job = client.job(job_id)
            seconds = round(time.monotonic() - begin, 1)
            replicas = n_replicas(record.pid)
            rows.append({"t_s": seconds, "replicas": replicas, "processed": job["processed"], "status": job["status"]})
            if job["status"] != "running" and replicas == 1 and any(row["replicas"] != 1 for row in rows):
                break
            time.sleep(interval_s)
    return rows


def main() -> None:
    """Watch one step and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="dinov2-small")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--interval-s", type=float, default=1.0)
    options = parser.parse_args()
    checkpoint = random_checkpoint(Path("out/benchmarks").resolve(), options.model)
    with tempfile.TemporaryDirectory() as folder:
        rows = trace(checkpoint, options.images.resolve(), Path(folder), options.interval_s)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
