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
WIDTH, BAND, SMOOTH = 640, 110, 4
"""Pixels of the plot, and of each curve's band; intervals over which a rate is taken."""
FONT = 'font-family="sans-serif" font-size="13" fill="#333"'


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
    """Wait until one replica runs; only with MIN_REPLICAS=1 do the others of one machine end."""
    deadline = time.monotonic() + PATIENCE_S
    while n_replicas(pid) != 1:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{n_replicas(pid)} replicas are left after {PATIENCE_S} s without work")
        time.sleep(1)


def trace(checkpoint: Path, images: Path, folder: Path, interval_s: float) -> list[dict[str, float | int | str]]:
    """One row an interval, from the POST until one replica is left."""
    rows: list[dict[str, float | int | str]] = []
    with running_service(checkpoint, images, "fp32", folder, min_replicas=1) as client:
        # It answers a moment before it has written its record.
        until = time.monotonic() + PATIENCE_S
        while (record := ServiceRecord.read(folder / "data-fp32")) is None:
            if time.monotonic() > until:
                raise RuntimeError("the service has left no record of itself")
            time.sleep(1)
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


def plot(rows: list[dict[str, float | int | str]]) -> str:
    """An SVG of replicas, images that wait, and images/s over the seconds of the trace."""
    times = [float(row["t_s"]) for row in rows]
    done = [float(row["processed"]) for row in rows]
    rates = [0.0] + [
        (done[i] - done[max(0, i - SMOOTH)]) / max(times[i] - times[max(0, i - SMOOTH)], 1e-9)
        for i in range(1, len(rows))
    ]
    curves = {
        "replicas": [float(row["replicas"]) for row in rows],
        "images waiting": [done[-1] - count for count in done],
        "images/s": rates,
    }
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 170} {3 * BAND + 30}" {FONT}>']
    for number, (name, values) in enumerate(curves.items()):
        base, top = (number + 1) * BAND, max(*values, 1e-9)
        points = " ".join(
            f"{60 + WIDTH * t / times[-1]:.1f},{base - (BAND - 30) * value / top:.1f}"
            for t, value in zip(times, values, strict=True)
        )
        parts.append(f'<line x1="60" y1="{base}" x2="{60 + WIDTH}" y2="{base}" stroke="#999"/>')
        parts.append(f'<polyline fill="none" stroke="#2166ac" stroke-width="2" points="{points}"/>')
        parts.append(f'<text x="{70 + WIDTH}" y="{base - 20}">{name}</text>')
        parts.append(f'<text x="50" y="{base - BAND + 34}" text-anchor="end">{top:.3g}</text>')
    parts.append(f'<text x="60" y="{3 * BAND + 20}">0 s</text>')
    parts.append(f'<text x="{60 + WIDTH}" y="{3 * BAND + 20}" text-anchor="end">{times[-1]:.0f} s after POST</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    """Watch one step and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="dinov2-small")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--plot", type=Path, help="write an SVG here as well")
    parser.add_argument("--interval-s", type=float, default=1.0)
    options = parser.parse_args()
    checkpoint = random_checkpoint(Path("out/benchmarks").resolve(), options.model)
    with tempfile.TemporaryDirectory() as folder:
        rows = trace(checkpoint, options.images.resolve(), Path(folder), options.interval_s)
    if options.plot:
        options.plot.write_text(plot(rows))
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
