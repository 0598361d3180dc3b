"""A random enemy of a running service, and the log of what the service promised meanwhile.

The log lies outside the service and is written before the next step, so that nothing the service forgets is
forgotten here.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

from tests.faults.album import Album, patiently
from tests.faults.service import PARTS
from tests.faults.stock import Stock
from tests.faults.wait import PATIENCE_S
from tests.faults.watching import Follower
from tests.ray.client import TERMINAL

FREEZE_S = (1.0, 8.0)
STOCK_S = 20.0
"""About as long as 200,000 rows take, to be staged and to replace the others."""
MORTAL = [part for part in PARTS if part not in {"raylet", "gcs", "fit"}]
MAP_EVERY = 3
"""Jobs of the user for each map."""


class AckLog:
    """What the service acknowledged: jobs it took, and the progress it told."""

    def __init__(self, path: Path) -> None:
        self.jobs: dict[str, int] = {}
        self._file = path.open("a")
        self._lock = threading.Lock()

    def note(self, job_id: str, processed: int) -> None:
        """Keep that so many samples of a job were told to be committed."""
        with self._lock:
            self.jobs[job_id] = max(processed, self.jobs.get(job_id, 0))
            self._file.write(json.dumps({"job_id": job_id, "processed": processed}) + "\n")
            self._file.flush()


class User(threading.Thread):
    """Keeps a job running, follows each to its end, and looks at what came of it."""

    def __init__(self, album: Album, log: AckLog) -> None:
        super().__init__(name="user", daemon=True)
        self.ends: Counter[str] = Counter()
        self.trouble: BaseException | None = None
        self._album = album
        self._log = log
        self._is_over = threading.Event()
        self._http = httpx.Client(base_url=album.service.settings.url, timeout=PATIENCE_S)

    def run(self) -> None:
        try:
            while not self._is_over.is_set():
                self._one_job()
        except BaseException as error:
            self.trouble = error

    def stop(self) -> None:
        """Begin no more jobs and wait for the end of the present one."""
        self._is_over.set()
        self.join(2 * PATIENCE_S)
        assert not self.is_alive(), "the user's job does not end"
        if self.trouble is not None:
            raise self.trouble

    def _one_job(self) -> None:
        try:
            answer = self._http.post(f"{self._album.path}/generate", json={"force": True})
        except httpx.HTTPError:
            time.sleep(0.5)
            return
        assert answer.status_code in {202, 409, 500, 503}, answer.text
        # A 500 is the proxy's own, for a request that died with its ingress.
        if answer.status_code not in {202, 409}:
            time.sleep(0.5)
            return
        job_id = answer.json()["job_id"]
        self._log.note(job_id, 0)
        follower = Follower(
            self._album.service.settings.url,
            self._album.dataset_id,
            on_event=lambda event: self._log.note(event["job_id"], event["processed"]),
        ).start()
        end = follower.end()
        self.ends[end["status"]] += 1
        self._look_around()

    def _look_around(self) -> None:
        """Ask what the searcher knows, and now and then for a map, which a third death in a row may end."""
        root = self._album.path.removesuffix("/embeddings")
        patiently(self._http, "GET", f"{root}/similarity/{min(self._album.vectors)}")
        if self.ends.total() % MAP_EVERY != 0:
            return
        try:
            answer = self._http.post(f"{self._album.path}/reduce", json={})
        except httpx.HTTPError:
            return
        assert answer.status_code in {202, 409, 500, 503}, answer.text
        if answer.status_code == 202:
            url = self._album.service.settings.url
            end = Follower(url, self._album.dataset_id, kind="reduce/progress").start().end()
            self.ends[f"map {end['status']}"] += 1


class Nemesis:
    """Takes one random action after another; `actions` counts them."""

    def __init__(self, album: Album, seed: int, *, whole_service: bool, stock: Stock | None) -> None:
        self.actions: Counter[str] = Counter()
        self._album = album
        self._service = album.service
        self._chance = random.Random(seed)
        self._whole_service = whole_service
        self._stock = stock

    def act(self) -> str:
        """Do one of them now; returns its name once it is done."""
        kills: list[tuple[str, Callable[[], Any]]] = [
            (f"kill {part}", lambda part=part: self._service.kill(part)) for part in MORTAL
        ]
        others: list[tuple[str, Callable[[], Any]]] = [
            ("kill writer", lambda: self._service.kill("writer")),
            ("freeze writer", self._freeze_writer),
            ("cancel", self._cancel),
            ("ten posts at once", self._post_together),
        ]
        if self._whole_service:
            others += [("kill everything", self._kill_everything), ("stop and start", self._restart)]
        if self._stock is not None:
            others += [("replace the stock", self._replace_stock)]
        name, action = self._chance.choice(kills + others)
        action()
        self.actions[name] += 1
        return name

    def _freeze_writer(self) -> None:
        pid = self._service.kill("writer", signal.SIGSTOP)
        time.sleep(self._chance.uniform(*FREEZE_S))
        os.kill(pid, signal.SIGCONT)

    def _replace_stock(self) -> None:
        """Send a large set, and kill the writer at some moment between its first row and the job's end."""
        assert self._stock is not None
        with ThreadPoolExecutor(1) as sender:
            replaced = sender.submit(self._stock.replace)
            wait([replaced], timeout=self._chance.uniform(0, STOCK_S))
            self._service.kill("writer")
            replaced.result()

    def _cancel(self) -> None:
        self._post("cancel")

    def _post_together(self) -> None:
        with ThreadPoolExecutor(10) as callers:
            answers = list(callers.map(lambda _: self._post("generate"), range(10)))
        # One may begin when another has already ended, so there may be two; but none is given to two callers.
        begun = [answer.json()["job_id"] for answer in answers if answer is not None and answer.status_code == 202]
        assert len(set(begun)) == len(begun), begun

    def _post(self, verb: str) -> httpx.Response | None:
        url = f"{self._service.settings.url}{self._album.path}/{verb}"
        try:
            return httpx.post(url, json={"force": True} if verb == "generate" else None, timeout=PATIENCE_S)
        except httpx.HTTPError:
            return None

    def _kill_everything(self) -> None:
        self._service.kill_all()
        self._service.start()

    def _restart(self) -> None:
        self._service.stop()
        self._service.start()


def torment(
    album: Album,
    log_path: Path,
    *,
    seconds: float,
    period_s: float,
    seed: int,
    whole_service: bool = False,
    stock: Stock | None = None,
) -> dict[str, object]:
    """Let a nemesis loose beside a user for so long; afterwards everything promised holds. Returns figures."""
    log = AckLog(log_path)
    user = User(album, log)
    nemesis = Nemesis(album, seed, whole_service=whole_service, stock=stock)
    user.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and user.trouble is None:
        print(f"{time.strftime('%X')} {nemesis.act()}", flush=True)
        time.sleep(period_s)
    user.stop()
    album.service.await_ready()
    album.settle()
    check_promises(album, log)
    if stock is not None:
        stock.check()
    return {
        "jobs": len(log.jobs),
        "ends": dict(user.ends),
        "actions": dict(nemesis.actions),
        "database_mb": album.service.settings.database_path.stat().st_size / 1e6,
    }


def check_promises(album: Album, log: AckLog) -> None:
    """Every job that was taken has ended, none with less than it told, and every vector is right."""
    for job_id, told in log.jobs.items():
        job = patiently(album.service.http, "GET", f"/jobs/{job_id}").json()
        assert job["status"] in TERMINAL, job
        assert job["status"] != "error", job
        assert job["processed"] >= told, (job, told)
    album.check()
