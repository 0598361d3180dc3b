"""A large set that is replaced again and again while readers ask: `python -m benchmarks.replacements --rows 300_000`.

Each import carries the same vectors, so that each answer must be the first one again, whichever set gave it. Halfway
the writer is killed. Prints a line a replacement (seconds, file over live vectors, memory of each part), then what the
readers were answered: nothing but 200, and 503 with `Retry-After` while the killed writer comes back.
"""

import argparse
import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.million import PATIENCE, Asked, write_set
from tests.faults.memory import make_minute_checkpoint
from tests.faults.service import PARTS, Service

PAUSE_S = 0.05
"""Between two questions of a reader."""
GROWTH_MB = 150.0
"""Above what a part had after the second replacement, it has grown."""
PROBE = "class-07/photograph-000000007.jpg"


class Reader(threading.Thread):
    """Asks one question until it is ended; `answers` counts what came back, with the moments of what was not 200."""

    def __init__(self, url: str, path: str) -> None:
        super().__init__(name=f"reader of {path}", daemon=True)
        self.answers: Counter[str] = Counter()
        self.failures: list[tuple[float, str]] = []
        self._http = httpx.Client(base_url=url, timeout=PATIENCE)
        self._path = path
        self._is_over = threading.Event()
        self._first: Any = None

    def run(self) -> None:
        """Ask."""
        while not self._is_over.wait(PAUSE_S):
            said = self._ask()
            self.answers[said] += 1
            if said != "200":
                self.failures.append((time.monotonic(), said))

    def end(self) -> None:
        """Ask no more."""
        self._is_over.set()
        self.join()

    def _ask(self) -> str:
        try:
            answer = self._http.get(self._path)
        except httpx.TransportError as error:
            return type(error).__name__
        if answer.status_code == 200:
            said = _lasting(answer.json())
            self._first = self._first or said
            return "200" if said == self._first else "200 with another answer"
        return f"{answer.status_code} {'with' if 'Retry-After' in answer.headers else 'without'} Retry-After"


def _lasting(answer: dict[str, Any]) -> object:
    """The part of an answer that no replacement may change."""
    if "items" in answer:
        return [item["sample_id"] for item in answer["items"]]
    return answer["embedding_count"]


@contextmanager
def readers(url: str, dataset: str) -> Iterator[list[Reader]]:
    """Two that search and one that asks for the status."""
    base = f"/datasets/{dataset}"
    paths = [f"{base}/similarity/{PROBE}", f"{base}/similarity/{PROBE}?limit=50", f"{base}/embeddings/status"]
    found = [Reader(url, path) for path in paths]
    for reader in found:
        reader.start()
    try:
        yield found
    finally:
        for reader in found:
            reader.end()


def footprint(service: Service, live_bytes: int) -> dict[str, float]:
    """Memory of each part's largest process in MB, without what is shared, and the database over its live vectors."""
    memory_mb = service.memory_mb()
    parts = {part: [memory_mb.get(pid, 0.0) for pid in service.pids(part)] for part in PARTS}
    found: dict[str, float] = {part: round(max(each)) for part, each in parts.items() if each}
    return found | {"file_over_live": round(service.settings.database_path.stat().st_size / live_bytes, 2)}


def patiently(work: Callable[[], None]) -> None:
    """Do it again until it is not refused; each refusal must say when."""
    while True:
        try:
            return work()
        except httpx.HTTPStatusError as error:
            if "Retry-After" not in error.response.headers:
                raise
            time.sleep(float(error.response.headers["Retry-After"]))
        except httpx.TransportError:
            time.sleep(1.0)


def replace(
    service: Service, asked: Asked, dataset: str, file: Path, live_bytes: int, *, times: int
) -> tuple[float, float]:
    """Replace the set, print each time; returns when the writer was killed, and when an import went well again."""
    killed, well_again = 0.0, 0.0
    first: dict[str, float] = {}
    for number in range(1, times + 1):
        began = time.monotonic()
        if number == times // 2 + 1:
            killed = time.monotonic()
            service.kill("writer")
        patiently(lambda: asked.finish(asked.send(dataset, file)))
        if killed and not well_again:
            well_again = time.monotonic()
        now = footprint(service, live_bytes)
        first = now if number == 2 else first
        print(json.dumps({"replacement": number, "seconds": round(time.monotonic() - began, 1), **now}), flush=True)
    grown = {part: now[part] - first[part] for part in first if part in now and part != "file_over_live"}
    print(json.dumps({"grown_mb": grown, "is_flat": max(grown.values()) < GROWTH_MB}), flush=True)
    return killed, well_again


def main() -> None:
    """Replace and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="replacements-"))
    service = Service(base, make_minute_checkpoint(base))
    try:
        service.start()
        asked = Asked(service.settings.url)
        manifest, file = write_set(service.roots, "large", options.rows, options.dimension)
        dataset = asked.register(manifest)
        asked.finish(asked.send(dataset, file))
        live_bytes = 4 * options.rows * options.dimension
        with readers(service.settings.url, dataset) as asking:
            killed, well_again = replace(service, asked, dataset, file, live_bytes, times=options.times)
        answers = sum((reader.answers for reader in asking), Counter())
        outside = [said for reader in asking for at, said in reader.failures if not killed <= at <= well_again]
        print(json.dumps({"answers": answers, "refused_outside_the_restart": outside[:20]}))
        service.stop()
    finally:
        service.kill_all()
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
