"""The real service as a subprocess: started, found by its processes, stopped, killed.

Every process of a service has the session id of its `constellate serve`, whatever title Ray gives it, so
that nothing else on the machine is ever touched. Processes are ended by pid only.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from serve_app.cli.service import UNTIL_EOF
from serve_app.config import PREFIX, Settings
from serve_app.policy import Policy
from serve_app.service_record import ServiceRecord
from tests.conftest import RAY_BESIDE_OTHERS
from tests.faults.wait import PATIENCE_S, until
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[2]

PARTS = {
    "replica": r"embedder[#:]DinoV2",
    "JobRunner": r"api.*JobRunner",
    "ingress": r"api.*Ingress",
    "proxy": r"ray::ProxyActor",
    "controller": r"ray::ServeController",
    "writer": r"ray::DuckDBWriter",
    "Reducer": r"api.*Reducer",
    "Searcher": r"api.*Searcher",
    "fit": r"multiprocessing\.spawn",
    "raylet": r"raylet/raylet ",
    "gcs": r"gcs/gcs_server ",
}
"""A pattern that the process title of each part matches, whether it is idle or runs a method."""


class Process(NamedTuple):
    """One process of a service; `started` is in ticks since boot and tells it from a later one with its pid."""

    pid: int
    title: str
    started: int

    def is_alive(self) -> bool:
        """Whether it has not ended yet; one that only waits to be reaped has."""
        return any((self.pid, self.started) == (other.pid, other.started) for _, other in _processes())


class Service:
    """One data directory, one port, and the service that runs on them, if it does.

    `longest_start_s` is how long a start took on this machine: one part of it should be back sooner than the whole.
    """

    def __init__(self, base: Path, model: Path) -> None:
        self.model = model
        self.roots = base / "images"
        self.roots.mkdir(parents=True, exist_ok=True)
        self.settings = Settings.from_environment(
            {},
            data_dir=base / "data",
            dataset_roots=(self.roots,),
            model=str(model),
            port=free_port(),
            device="cpu",
            max_replicas=1,
        )
        self.http = httpx.Client(base_url=self.settings.url, timeout=PATIENCE_S)
        self.log = base / "serve.log"
        self.longest_start_s = 0.0
        self._serve: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process of `constellate serve`."""
        assert self._serve is not None
        return self._serve.pid

    @property
    def in_flight(self) -> int:
        """Images that are on their way between the job loop and the one replica."""
        policy = Policy.choose(self.settings, n_cpus=os.cpu_count() or 1, n_gpus=0)
        return policy.window * policy.chunk_images

    @property
    def is_up(self) -> bool:
        """Whether `constellate serve` runs."""
        return self._serve is not None and self._serve.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What `constellate serve` ended with."""
        return self._serve.poll() if self._serve is not None else None

    def start(self) -> float:
        """Start and wait until it is ready; the seconds that took."""
        began = time.monotonic()
        self.launch()
        self.await_ready()
        start_s = time.monotonic() - began
        self.longest_start_s = max(self.longest_start_s, start_s)
        return start_s

    def launch(self) -> None:
        """Start and return at once."""
        with self.log.open("ab") as log:
            self._serve = subprocess.Popen(
                [sys.executable, "-m", "serve_app.cli", "serve", UNTIL_EOF],  # or it outlives tests that are killed
                cwd=REPOSITORY,
                env=self.environment(self.settings),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @staticmethod
    def environment(settings: Settings) -> dict[str, str]:
        """The environment of a process with these settings, and of no other Ray cluster than its own."""
        foreign = {name: text for name, text in os.environ.items() if not name.startswith((PREFIX, "RAY_"))}
        return foreign | settings.to_environment() | {"HF_HUB_OFFLINE": "1", **RAY_BESIDE_OTHERS}

    def await_ready(self) -> None:
        """Wait until this very service says that it is up and `/readyz` says yes."""

        def ready() -> bool:
            assert self.is_up, f"the service ended: {self.last_words()}"
            record = ServiceRecord.read(self.settings.data_dir)
            return record is not None and record.pid == self.pid and self.status_of("/readyz") == 200

        until(ready, lambda: f"not ready: {self.last_words()}")

    def is_listening(self) -> bool:
        """Whether its port takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex((self.settings.host, self.settings.port)) == 0

    def status_of(self, path: str) -> int | None:
        """The status that GET answers; None without an answer."""
        try:
            return self.http.get(path).status_code
        except httpx.HTTPError:
            return None

    def last_words(self) -> str:
        """The end of what the service printed."""
        return self.log.read_text(errors="replace")[-600:]

    def processes(self) -> list[Process]:
        """Everything that runs in the service's session."""
        if self._serve is None:
            return []
        ours = [process for session_id, process in _processes() if session_id == self.pid]
        return sorted(ours, key=lambda process: process.started)

    def pids(self, part: str) -> list[int]:
        """The processes of a part, oldest first."""
        return [process.pid for process in self.processes() if re.search(PARTS[part], process.title)]

    def memory_mb(self) -> dict[int, float]:
        """Resident memory of each process by pid, without what Ray's processes share."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                found[process.pid] = int(status.partition("RssAnon:")[2].split()[0]) / 1024
        return found

    def kill(self, part: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal the one process of a part and return its pid."""
        until(lambda: self.pids(part), lambda: f"there is no {part}")
        pid = self.pids(part)[0]
        os.kill(pid, number)
        return pid

    @contextlib.contextmanager
    def frozen(self, part: str) -> Iterator[int]:
        """Stop the one process of a part while the block runs, which may kill it; its pid."""
        pid = self.kill(part, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill_all(self) -> int:
        """SIGKILL every process of the service, whatever it forks meanwhile; how many there were."""
        killed: set[int] = set()
        while processes := self.processes():
            for process in processes:
                killed.add(process.pid)
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._reap()
        return len(killed)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it as a user does; the seconds until `constellate serve` has ended."""
        assert self._serve is not None
        began = time.monotonic()
        self._serve.send_signal(number)
        self._serve.wait(PATIENCE_S)
        return time.monotonic() - began

    def _reap(self) -> None:
        if self._serve is not None:
            self._serve.poll()


def _processes() -> Iterator[tuple[int, Process]]:
    """Every process of the machine that has not ended, with its session id."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # Field 2 may hold anything, so count from its closing parenthesis: state, ppid, pgrp, session, ….
            state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if state not in "ZX":
            yield int(fields[2]), Process(int(entry.name), title, int(fields[18]))
