"""500 progress streams beside a job: how late an event comes, and what the job loses. `python -m benchmarks.sse`.

Jobs with and without readers take turns on one service whose replicas are warm, each of them first in every other
round, and begin when the service has been left alone for a moment: opening hundreds of streams is work as well. A
job's time is that of its row, because the news of its end is late where hundreds wait for it. The readers are one
process of the lowest priority on the same machine, so that what the job loses includes what they take from it. CPU time
is counted to the end of the last stream, without the readers: it says what streams cost where other work makes the
rates differ from round to round. An event's delay is counted from the moment the first reader showed that many images.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.checkpoints import ARCHITECTURES, random_checkpoint
from benchmarks.throughput import running_service, service_job, warm_up
from constellate import Constellate

SETTLE_S = 5.0
STATE = re.compile(rb'"status": "(\w+)", "processed": (\d+)')
Seen = list[tuple[float, int, bool]]
"""(time, images committed, whether it was the end) of each event of a stream."""


async def read_stream(port: int, path: str, is_open: asyncio.Semaphore) -> Seen:
    """Open a stream and read it to its end; `is_open` counts the streams that have had their first event."""
    seen: Seen = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    while line := await reader.readline():
        if found := STATE.search(line):
            if not seen:
                is_open.release()
            seen.append((time.time(), int(found[2]), found[1] in (b"complete", b"error", b"cancelled")))
            if seen[-1][2]:
                break
    writer.close()
    return seen


def read_streams(port: int, path: str, n_streams: int, results: "Queue[Any]") -> None:
    """The readers' process: says when all streams are open, and at the end what they saw."""
    os.nice(19)

    async def read() -> list[Seen]:
        is_open = asyncio.Semaphore(0)
        streams = []
        for _ in range(n_streams):
            streams.append(asyncio.create_task(read_stream(port, path, is_open)))
            await is_open.acquire()
        results.put("open")
        return await asyncio.gather(*streams)

    results.put(asyncio.run(read()))


class Cost(NamedTuple):
    """What a job took: images/s, and CPU ms per image by process."""

    images_per_s: float
    cpu_ms: Counter[str]


def cpu_s(without: int) -> Counter[str]:
    """CPU seconds so far of this process's children by title; `without` is a child that is not of the service."""
    used: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.pid != without:
                times = process.cpu_times()
                used[" ".join(process.cmdline())[:30]] += times.user + times.system
    return used


def settled_job(
    client: Constellate, dataset_id: str, readers_pid: int = 0, await_readers: Callable[[], object] = lambda: None
) -> Cost:
    """What a job costs that begins in peace, and all who follow it, to their end."""
    time.sleep(SETTLE_S)
    before = cpu_s(readers_pid)
    service_job(client, dataset_id)
    await_readers()
    used = cpu_s(readers_pid) - before
    job = client.jobs()[0]
    begin, end = (datetime.fromisoformat(str(job[at])) for at in ("created_at", "finished_at"))
    n_images = job["processed"]
    return Cost(
        n_images / (end - begin).total_seconds(),
        Counter({title: 1000 * seconds / n_images for title, seconds in used.items()}),
    )


def watched_job(client: Constellate, dataset_id: str, port: int, n_streams: int) -> tuple[Cost, list[Seen]]:
    """What a job costs that many streams follow, and what they saw."""
    context = multiprocessing.get_context("spawn")
    results: Queue[Any] = context.Queue()
    # The streams open onto the end of the last job were it the newest: so they follow one that waits for them.
    path = f"/datasets/{dataset_id}/embeddings/progress"
    readers = context.Process(target=read_streams, args=(port, path, n_streams, results))
    readers.start()
    if results.get(timeout=120) != "open":
        raise RuntimeError("the streams did not open")
    seen: list[Seen] = []
    cost = settled_job(client, dataset_id, readers.pid or 0, lambda: seen.extend(results.get(timeout=60)))
    readers.join()
    return cost, seen


def delays(seen: list[Seen]) -> tuple[list[float], list[float]]:
    """Seconds by which streams showed each count after the first of them did; of the ends alone."""
    first: dict[int, float] = {}
    for stream in seen:
        for at, processed, _ in stream:
            first[processed] = min(at, first.get(processed, at))
    counts = sorted(count for count in first if count)  # the state before the job came when the stream was opened
    late: list[float] = []
    for stream in seen:
        events = iter(stream)
        at, processed, _ = next(events)
        for count in counts:
            while processed < count:
                at, processed, _ = next(events)
            late.append(max(0.0, at - first[count]))
    ends = [stream[-1][0] for stream in seen]
    return late, [at - min(ends) for at in ends]


def percentile(values: list[float], share: float) -> float:
    """The value that this share of them stays below."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(checkpoint: Path, images: Path, *, n_streams: int, rounds: int) -> dict[str, object]:
    """Jobs with and without readers in turn."""
    alone: list[Cost] = []
    followed: list[Cost] = []
    late: list[float] = []
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder, running_service(checkpoint, images, "fp32", Path(folder)) as client:
        warm_up(client, client.register("warm-up", images)["id"], seconds=20)
        port = int(str(client.url).rpartition(":")[2])
        for number in range(rounds):
            # A new dataset each time: the streams wait for its first job instead of ending with an earlier one.
            unwatched = client.register(f"alone-{number}", images)["id"]
            watched = client.register(f"followed-{number}", images)["id"]
            if number % 2:
                alone.append(settled_job(client, unwatched))
            cost, seen = watched_job(client, watched, port, n_streams)
            if not number % 2:
                alone.append(settled_job(client, unwatched))
            followed.append(cost)
            for total, part in zip((late, ends), delays(seen), strict=True):
                total += part
    pairs = list(zip(alone, followed, strict=True))
    spent = (
        sum((cost.cpu_ms for cost in followed), Counter[str]()),
        sum((cost.cpu_ms for cost in alone), Counter[str]()),
    )
    more = Counter({title: (ms - spent[1][title]) / rounds for title, ms in spent[0].items()})
    return {
        "streams": n_streams,
        "event_delay_p50_s": round(percentile(late, 0.5), 2),
        "event_delay_p99_s": round(percentile(late, 0.99), 2),
        "end_delay_p99_s": round(percentile(ends, 0.99), 2),
        "job_loses": round(statistics.median(1 - f.images_per_s / a.images_per_s for a, f in pairs), 3),
        "cpu_more": round(statistics.median(f.cpu_ms.total() / a.cpu_ms.total() - 1 for a, f in pairs), 3),
        "cpu_ms_an_image_more": {title: round(ms / rounds, 2) for title, ms in more.most_common(6)},
        "rounds": {
            "alone_images_per_s": [round(cost.images_per_s, 2) for cost in alone],
            "followed": [round(cost.images_per_s, 2) for cost in followed],
            "alone_cpu_ms_an_image": [round(cost.cpu_ms.total(), 1) for cost in alone],
            "followed_cpu": [round(cost.cpu_ms.total(), 1) for cost in followed],
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="dinov2-small")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoints", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    checkpoint = random_checkpoint(options.checkpoints.resolve(), options.model)
    result = measure(checkpoint, options.images.resolve(), n_streams=options.streams, rounds=options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    sys.exit(main())
