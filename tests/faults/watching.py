"""What clients see while something dies: a progress stream that reconnects, and reads that poll."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import httpx
from httpx_sse import SSEError, connect_sse

from constellate.wire import STREAM_SILENCE_S
from tests.faults.wait import PATIENCE_S, until
from tests.ray.client import TERMINAL

RECONNECT_S = 0.2


class Seen(NamedTuple):
    """A progress event and when it came."""

    at: float
    event: dict[str, Any]


class Follower:
    """Follows a dataset's progress to the terminal event, through any number of broken streams."""

    def __init__(
        self,
        url: str,
        dataset_id: str,
        *,
        kind: str = "progress",
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self.seen: list[Seen] = []
        self._on_event = on_event
        self.n_connections = 0
        self._url = url
        self._path = f"/datasets/{dataset_id}/embeddings/{kind}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    @property
    def processed(self) -> int:
        """The newest count."""
        return self.seen[-1].event["processed"] if self.seen else 0

    @property
    def is_over(self) -> bool:
        """Whether the terminal event came."""
        return bool(self.seen) and self.seen[-1].event["status"] in TERMINAL

    def start(self) -> "Follower":
        self._thread.start()
        return self

    def stop(self) -> None:
        """Let go, whatever the stream does."""
        self._stop.set()

    def await_processed(self, count: int) -> None:
        """Wait until so many samples are committed."""
        until(lambda: self.processed >= count or self.is_over, lambda: f"last seen: {self.seen[-1:]}")
        assert not self.is_over, f"too late: {self.seen[-1].event}"

    def end(self) -> dict[str, Any]:
        """Wait for the terminal event; progress never went down and ended once."""
        until(lambda: self.is_over, lambda: f"last seen: {self.seen[-1:]}")
        self._thread.join(PATIENCE_S)
        counts = [seen.event["processed"] for seen in self.seen]
        assert counts == sorted(counts), f"progress went down: {counts}"
        ends = [seen.event for seen in self.seen if seen.event["status"] in TERMINAL]
        assert len(ends) == 1, ends
        return ends[0]

    def stalled_s(self, since: float) -> float:
        """The longest time from a moment on in which progress did not rise; what was on its way then still did."""
        advances = [since]
        count = max((seen.event["processed"] for seen in self.seen if seen.at <= since), default=0)
        for seen in self.seen:
            if seen.at > since and (seen.event["processed"] > count or seen.event["status"] in TERMINAL):
                advances.append(seen.at)
                count = seen.event["processed"]
        return max(later - earlier for earlier, later in pairwise(advances))

    def _run(self) -> None:
        last_id = ""
        with httpx.Client(base_url=self._url, timeout=STREAM_SILENCE_S) as http:
            while not (self.is_over or self._stop.is_set()):
                headers = {"Last-Event-ID": last_id} if last_id else {}
                self.n_connections += 1
                try:
                    with connect_sse(http, "GET", self._path, headers=headers) as source:
                        for event in source.iter_sse():
                            last_id = event.id
                            self.seen.append(Seen(time.monotonic(), json.loads(event.data)))
                            self._on_event(self.seen[-1].event)
                            if self._stop.is_set():
                                return
                except (httpx.HTTPError, SSEError):
                    self._stop.wait(RECONNECT_S)


class Read(NamedTuple):
    """One poll of a dataset's embedding status; `code` is 0 without an answer."""

    at: float
    seconds: float
    code: int
    count: int | None
    job_id: str | None


class Reader:
    """Polls which vectors a dataset has, as a page would."""

    def __init__(self, url: str, dataset_id: str) -> None:
        self.reads: list[Read] = []
        self._url = url
        self._path = f"/datasets/{dataset_id}/embeddings/status"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> "Reader":
        self._thread.start()
        return self

    def await_answer(self) -> None:
        """Wait for a read that begins now and is answered: a job may be over before what died is back."""
        now = time.monotonic()
        until(lambda: self.reads[-1].code == 200 and self.reads[-1].at > now, lambda: f"last read: {self.reads[-1]}")

    def stop(self) -> None:
        """Poll no more."""
        self._stop.set()
        self._thread.join(PATIENCE_S)

    def sets(self) -> set[tuple[int | None, str | None]]:
        """The (count, job id) of every set of vectors that was ever seen."""
        return {(read.count, read.job_id) for read in self.reads if read.code == 200}

    def outage_s(self, since: float) -> float:
        """The seconds from a moment to the first answer that comes after a refusal or a failure; 0 without one."""
        after = [read for read in self.reads if read.at + read.seconds >= since]
        failed = [i for i, read in enumerate(after) if read.code != 200]
        if not failed:
            return 0.0
        back = after[min(failed[-1] + 1, len(after) - 1)]
        return back.at + back.seconds - since

    def slowest_s(self) -> float:
        return max(read.seconds for read in self.reads)

    def codes(self) -> set[int]:
        return {read.code for read in self.reads}

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as http:
            while not self._stop.wait(0.15):
                began = time.monotonic()
                code, state = 0, {}
                try:
                    answer = http.get(self._path)
                    code = answer.status_code
                    state = answer.json() if code == 200 else {}
                except httpx.HTTPError:
                    pass
                seconds = time.monotonic() - began
                self.reads.append(Read(began, seconds, code, state.get("embedding_count"), state.get("job_id")))


@contextmanager
def watched(url: str, dataset_id: str) -> Iterator[tuple[Follower, Reader]]:
    """A follower, to be started once there is a job, and a reader of one dataset, for as long as the block runs."""
    follower, reader = Follower(url, dataset_id), Reader(url, dataset_id).start()
    try:
        yield follower, reader
    finally:
        follower.stop()
        reader.stop()
