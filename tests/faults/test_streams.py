"""Five hundred progress streams beside a running job: all of them end, and the service stays quick."""

import asyncio
import json
import threading
import time
from pathlib import Path

import httpx
import pytest

from serve_app.progress import MAX_STREAMS
from tests.faults.album import Album
from tests.faults.report import measured
from tests.faults.service import Service
from tests.ray.client import TERMINAL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

TOGETHER = 51
HEALTHZ_P95_S = 0.5
"""Twice what is promised: the test, its 500 clients and the job share two cores with whatever else runs there."""
GROWTH_MB = 150.0


class Health(threading.Thread):
    """Asks `/healthz` ten times a second and keeps how long the answers took."""

    def __init__(self, url: str) -> None:
        super().__init__(name="health", daemon=True)
        self.seconds: list[float] = []
        self._http = httpx.Client(base_url=url, timeout=30)
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.1):
            began = time.perf_counter()
            assert self._http.get("/healthz").status_code == 200
            self.seconds.append(time.perf_counter() - began)

    def p95_s(self) -> float:
        self._is_over.set()
        self.join(30)
        return sorted(self.seconds)[int(0.95 * len(self.seconds))]


async def open_stream(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int, bytes]:
    """A stream without the weight of an HTTP client: its ends, the status, and the headers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    return reader, writer, int(head.split()[1]), head


async def last_event(reader: asyncio.StreamReader) -> dict[str, object]:
    """The data of the last event before the stream ends."""
    last = b""
    while line := await reader.readline():
        if line.startswith(b"data:"):
            last = line
        elif line.startswith(b"0\r\n"):
            break
    event: dict[str, object] = json.loads(last.removeprefix(b"data:"))
    return event


def memory_mb(service: Service, part: str) -> float:
    """Resident memory of a part's processes, those that Ray shares with others not counted."""
    total_kb = 0
    for pid in service.pids(part):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        total_kb += int(fields["RssAnon"].split()[0])
    return total_kb / 1024


def test_five_hundred_streams_get_their_end_and_the_next_one_is_told_to_wait(album: Album):
    service = album.service
    # A dataset without a job: its streams wait for one instead of ending at once.
    idle = Album.register(service, album.root, name="streams")
    port, path = service.settings.port, f"{idle.path}/progress"
    before_mb = memory_mb(service, "ingress")
    health = Health(service.settings.url)

    async def scenario() -> tuple[list[dict[str, object]], list[bytes], float]:
        streams, refused = [], []
        while not refused:
            assert len(streams) < MAX_STREAMS * len(service.pids("ingress")) + TOGETHER
            for stream in await asyncio.gather(*(open_stream(port, path) for _ in range(TOGETHER))):
                if stream[2] == 200:
                    streams.append(stream)
                else:
                    assert stream[2] == 503
                    refused.append(stream[3])
        health.start()
        job_id = await asyncio.to_thread(idle.generate)
        ends = await asyncio.gather(*(last_event(reader) for reader, *_ in streams))
        peak_mb = await asyncio.to_thread(memory_mb, service, "ingress")
        for _, writer, *_ in streams:
            writer.close()
        assert {end["job_id"] for end in ends} == {job_id}
        return ends, refused, peak_mb

    ends, refused, peak_mb = asyncio.run(scenario())
    p95_s = health.p95_s()
    assert len(ends) >= MAX_STREAMS
    assert {end["status"] for end in ends} <= TERMINAL
    assert all(b"retry-after" in head.lower() for head in refused)
    measured(
        f"{len(ends)} streams in a job",
        healthz_p95_s=p95_s,
        healthz_max_s=max(health.seconds),
        ingress_growth_mb=peak_mb - before_mb,
        refused=len(refused),
    )
    assert p95_s < HEALTHZ_P95_S
    assert peak_mb - before_mb < GROWTH_MB
