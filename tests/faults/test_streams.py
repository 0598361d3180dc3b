"""Hundreds of progress streams beside a running job: all of them end, places come back, the service stays quick."""

import asyncio
import json
import random
import socket
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from serve_app.api.progress_hub import MAX_STREAMS
from serve_app.policy import INGRESS_REPLICAS
from tests.faults.album import Album
from tests.faults.report import measured
from tests.faults.service import Service
from tests.faults.wait import PATIENCE_S, until
from tests.faults.watching import Follower
from tests.ray.client import TERMINAL
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.faults

CAPACITY = INGRESS_REPLICAS * MAX_STREAMS
PROMISED = 500
FROZEN = 50
DISCONNECTS = 1000
TOGETHER = 50
EVERY_S = 0.05
GROWTH_MB = 100.0
"""Of any process. What Ray's processes share is not counted."""


class Health(threading.Thread):
    """Asks `/healthz` all the time; keeps what it was answered, after how long, and how late the thread was woken."""

    def __init__(self, url: str) -> None:
        super().__init__(name="health", daemon=True)
        self.codes: set[int] = set()
        self.seconds: list[float] = []
        self.late_s: list[float] = []
        self._http = httpx.Client(base_url=url, timeout=PATIENCE_S)
        self._is_over = threading.Event()

    def run(self) -> None:
        slept = time.perf_counter()
        while not self._is_over.wait(EVERY_S):
            began = time.perf_counter()
            self.late_s.append(began - slept - EVERY_S)
            self.codes.add(self._http.get("/healthz").status_code)
            slept = time.perf_counter()
            self.seconds.append(slept - began)

    def stop(self) -> None:
        """Ask no more."""
        self._is_over.set()
        self.join(PATIENCE_S)


class Stream(NamedTuple):
    """A connection without the weight of an HTTP client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int
    head: bytes

    @classmethod
    async def open(cls, service: Service, path: str) -> "Stream":
        reader, writer = await asyncio.open_connection("127.0.0.1", service.settings.port)
        writer.write(request(service, path))
        head = await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer, int(head.split()[1]), head)

    async def end(self) -> dict[str, object]:
        """The data of the last event before the stream ends."""
        last = b""
        while line := await self.reader.readline():
            if line.startswith(b"data:"):
                last = line
            elif line.startswith(b"0\r\n"):
                break
        event: dict[str, object] = json.loads(last.removeprefix(b"data:"))
        return event


def percentile_95(seconds: list[float]) -> float:
    """What 95 of a hundred stay below."""
    return sorted(seconds)[int(0.95 * len(seconds))]


def request(service: Service, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{service.settings.port}\r\n\r\n".encode()


async def fill(service: Service, path: str, capacity: int) -> tuple[list[Stream], list[Stream]]:
    """Open streams until so many are taken; those, and what was refused meanwhile: one ingress is full first."""
    taken: list[Stream] = []
    refused: list[Stream] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < capacity and time.monotonic() < deadline:
        missing = min(TOGETHER, capacity - len(taken))
        for stream in await asyncio.gather(*(Stream.open(service, path) for _ in range(missing))):
            (taken if stream.status == 200 else refused).append(stream)
    return taken, refused


async def disconnect_at_random(service: Service, path: str, chance: random.Random) -> None:
    """Connect, ask, and reset the connection: mostly before the first byte, else after the first bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.settings.port)
    whole = request(service, path)
    writer.write(whole[: chance.choice([len(whole), len(whole), len(whole), 20])])
    if chance.random() < 0.5:
        await asyncio.sleep(chance.uniform(0, 0.05))
    else:
        await asyncio.wait({asyncio.create_task(reader.read(chance.choice([1, 500])))}, timeout=0.5)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def frozen_reader(service: Service, path: str) -> socket.socket:
    """A client that asks and never reads; what is sent to it has nowhere to go."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    client.connect(("127.0.0.1", service.settings.port))
    client.sendall(request(service, path))
    return client


def is_connected(service: Service, client: socket.socket) -> bool:
    """Whether the kernel still has the service's end of a client's connection."""
    ends = [f"{service.settings.port:04X}", f"{client.getsockname()[1]:04X}", "01"]  # 01: established
    fields = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(ends == [local[-4:], remote[-4:], state] for _, local, remote, state, *_ in fields)


def grown_mb(service: Service, before: dict[int, float]) -> dict[str, float]:
    """By how much each process has grown since `before`, by title."""
    now = service.memory_mb()
    titles = {process.pid: process.title for process in service.processes()}
    return {titles[pid]: now[pid] - before[pid] for pid in before.keys() & now.keys() & titles.keys()}


@pytest.mark.every
def test_after_a_thousand_disconnects_every_place_is_free_and_a_full_house_sees_the_end(album: Album):
    service = album.service
    # A dataset without a job: its streams wait for one instead of ending at once.
    idle = Album.register(service, album.root, name="streams")
    path = f"{idle.path}/progress"
    before = service.memory_mb()
    health = Health(service.settings.url)

    async def scenario() -> tuple[int, list[dict[str, object]], list[Stream], dict[str, float]]:
        chance = random.Random(3)
        for _ in range(DISCONNECTS // TOGETHER):
            await asyncio.gather(*(disconnect_at_random(service, path, chance) for _ in range(TOGETHER)))
        frozen = [await asyncio.to_thread(frozen_reader, service, path) for _ in range(FROZEN)]
        # Were places lost, fewer than the capacity would be taken.
        streams, refused = await fill(service, path, CAPACITY - FROZEN)
        n_taken = len(streams)
        refused += [await Stream.open(service, path) for _ in range(5)]
        surplus, streams = streams[PROMISED - FROZEN :], streams[: PROMISED - FROZEN]
        for stream in surplus + refused:
            stream.writer.close()

        health.start()
        await asyncio.to_thread(idle.generate)
        ends = await asyncio.gather(*(stream.end() for stream in streams))
        grown = await asyncio.to_thread(grown_mb, service, before)
        for stream in streams:
            stream.writer.close()
        for client in frozen:
            client.close()
        return n_taken, ends, refused, grown

    n_taken, ends, refused, grown = asyncio.run(scenario())
    health.stop()
    p95_s, late_s = percentile_95(health.seconds), percentile_95(health.late_s)
    largest = max(grown, key=lambda title: grown[title])
    measured(
        f"{len(ends)} streams in a job, and {FROZEN} that nobody reads",
        healthz_p95_s=p95_s,
        own_delay_p95_s=late_s,
        healthz_max_s=max(health.seconds),
        largest_growth_mb=grown[largest],
        grown=largest,
        refused=len(refused),
    )
    assert n_taken == CAPACITY - FROZEN
    assert len(ends) == PROMISED - FROZEN
    assert {str(end["status"]) for end in ends} <= TERMINAL
    assert {end["processed"] for end in ends} == {album.n_images}
    assert {stream.status for stream in refused} == {503}
    assert all(b"retry-after" in stream.head.lower() for stream in refused)
    assert health.codes == {200}
    assert grown[largest] < GROWTH_MB


@pytest.mark.every
def test_a_stream_that_nobody_reads_is_dropped_while_its_job_runs(album: Album):
    service = album.service
    long = Album.register(service, make_folder(service.roots / "long", n_images=1500, seed=13), name="long")
    frozen = [frozen_reader(service, f"{long.path}/progress") for _ in range(5)]
    reader = Follower(service.settings.url, long.dataset_id).start()
    job_id = long.generate()
    reader.await_processed(1)
    assert all(is_connected(service, client) for client in frozen)
    dropped_s = until(
        lambda: not any(is_connected(service, client) for client in frozen),
        lambda: f"still connected, the job being {long.job(job_id)}",
    )
    measured("5 streams that nobody reads are dropped", seconds=dropped_s)
    assert long.job(job_id)["status"] == "running"
    assert reader.n_connections == 1
    assert service.http.post(f"{long.path}/cancel").status_code == 202
    assert reader.end()["status"] == "cancelled"
    for client in frozen:
        client.close()
