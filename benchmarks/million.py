"""A large set asked over HTTP: registered, imported, searched, exported. `python -m benchmarks.million --rows 300_000`.

A service of its own gets clustered vectors and is asked as a client asks. A small dataset in the same database shows
what its neighbour costs it. The graph takes minutes at a million, and a map too: `--without` leaves some out.
Prints the table with what was to be reached at 1,000,000 × 768, and one line of JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.throughput import running_service
from benchmarks.vectors import clustered
from tests.faults.memory import make_minute_checkpoint

SMALL_ROWS = 5_000
FILE_ROWS = 50_000
REPEATS = 20
PATIENCE = httpx.Timeout(10.0, read=3600.0, write=3600.0)


class Goal(NamedTuple):
    """A row of the table: its words, unit, and the bound, which is the least value where `is_least`."""

    what: str
    unit: str
    bound: float | None
    is_least: bool = False


GOALS = {
    "manifest": Goal("files/s listed by POST /datasets", "/s", 50_000, is_least=True),
    "import": Goal("rows/s imported, from POST to 202", "/s", 15_000, is_least=True),
    "commit": Goal("from 202 until the vectors are current", "s", 2),
    "status": Goal("/embeddings/status, p50", "ms", 20),
    "similar first": Goal("similar images, the first time", "s", 3),
    "similar": Goal("similar images, p50", "ms", 60),
    "neighbour": Goal("similar images of 5,000 in the same file, p50", "ms", 20),
    "graph": Goal("neighbour graph, from POST to complete", "s", 900),
    "diverse": Goal("diverse choice of 1,000", "s", 60),
    "export": Goal("export to Parquet", "s", 60),
    "duplicates": Goal("near-duplicates", "s", 20),
    "outliers": Goal("outliers", "s", 5),
    "map": Goal("map, from POST to complete, on top of the graph", "s", 900),
    "coordinates": Goal("coordinates as Arrow", "s", None),
}


def write_set(folder: Path, name: str, rows: int, dimension: int) -> tuple[Path, Path]:
    """A manifest of images that nobody opens, and the Parquet file of their vectors."""
    vectors = clustered(rows, dimension)
    manifest, file = folder / f"{name}.parquet", folder / f"{name}-vectors.parquet"
    names = [f"class-{row % 50:02d}/photograph-{row:09d}.jpg" for row in range(rows)]
    pq.write_table(pa.table({"file_name": names, "label": [text[:8] for text in names]}), manifest)
    kind = pa.schema([("file_name", pa.string()), ("vector", pa.list_(pa.float32(), dimension))])
    with pq.ParquetWriter(file, kind, use_dictionary=False, compression="none") as writer:
        for start in range(0, rows, FILE_ROWS):
            part = np.ascontiguousarray(vectors[start : start + FILE_ROWS])
            column = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), dimension)
            writer.write_table(pa.table([pa.array(names[start : start + FILE_ROWS]), column], schema=kind))
    return manifest, file


class Asked:
    """The service over HTTP; `results` has a number for each question, or the answer that was no answer."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=PATIENCE)
        self.results: dict[str, float | str] = {}

    def measure(self, name: str, work: Callable[[], object], *, times: int = 1, scale: float = 1.0) -> None:
        """The median time of the work, times the scale."""
        try:
            seconds = [_seconds(work) for _ in range(times)]
            self.results[name] = round(statistics.median(seconds) * scale, 3)
        except httpx.HTTPStatusError as error:
            self.results[name] = f"{error.response.status_code}: {error.response.text[:200]}"
        print(f"{name}: {self.results[name]}", file=sys.stderr, flush=True)

    def ask(self, path: str, **query: object) -> Any:
        """The JSON of an answer. Raises `httpx.HTTPStatusError`."""
        return self.http.get(path, params=query).raise_for_status().json()

    def download(self, path: str, **headers: str) -> None:
        """Read a stream to its end."""
        with self.http.stream("GET", path, headers=headers) as answer:
            answer.raise_for_status()
            for _ in answer.iter_raw():
                pass

    def register(self, manifest: Path) -> str:
        """Register a manifest by a job and wait for its end; returns the dataset's id."""
        body = {"name": manifest.stem, "root": str(manifest.parent), "format": "manifest", "annotations": str(manifest)}
        answer = self.http.post("/datasets", json=body, headers={"Prefer": "respond-async"}).raise_for_status().json()
        self.finish(answer["job_id"])
        found: str = answer["dataset_id"]
        return found

    def send(self, dataset: str, file: Path) -> str:
        """Send vectors; returns the job's id."""
        with file.open("rb") as content:
            answer = self.http.post(
                f"/datasets/{dataset}/embeddings/import",
                params={"space_key": "synthetic/1", "model_name": "synthetic"},
                headers={"Content-Type": "application/vnd.apache.parquet"},
                content=_parts(content),
            )
        found: str = answer.raise_for_status().json()["job_id"]
        return found

    def start(self, dataset: str, what: str) -> None:
        """Begin a job of a dataset and wait for its end."""
        answer = self.http.post(f"/datasets/{dataset}/{what}", json={}).raise_for_status()
        self.finish(answer.json()["job_id"])

    def finish(self, job: str) -> None:
        """Wait for a job's end, and raise `RuntimeError` when it is not `complete`."""
        while (state := self.ask(f"/jobs/{job}"))["status"] == "running":
            time.sleep(0.2)
        if state["status"] != "complete":
            raise RuntimeError(state["message"])


def ask_everything(asked: Asked, folder: Path, rows: int, dimension: int, without: set[str]) -> None:
    """Go through the questions in order."""
    small = _small(asked, folder, dimension)
    manifest, file = write_set(folder, "large", rows, dimension)
    os.sync()  # or the disk is still busy with these files while the first steps are timed
    found: list[str] = []
    asked.measure("manifest", lambda: found.append(asked.register(manifest)))
    dataset = found[0]
    asked.measure("import", lambda: found.append(asked.send(dataset, file)))
    asked.measure("commit", lambda: asked.finish(found[-1]))
    for name in ("manifest", "import"):
        asked.results[name] = round(rows / float(asked.results[name]))
    file.unlink()
    some = [f"/datasets/{dataset}/similarity/class-{row % 50:02d}/photograph-{row:09d}.jpg" for row in range(REPEATS)]
    turn = iter(some * 2)
    asked.measure("status", lambda: asked.ask(f"/datasets/{dataset}/embeddings/status"), times=REPEATS, scale=1000)
    asked.measure("similar first", lambda: asked.ask(next(turn)))
    asked.measure("similar", lambda: asked.ask(next(turn)), times=REPEATS, scale=1000)
    asked.measure("neighbour", lambda: asked.ask(small), times=REPEATS, scale=1000)
    if "graph" not in without:
        asked.measure("graph", lambda: asked.start(dataset, "graph"))
    for name, query in (("diverse", {"n": 1000}), ("duplicates", {}), ("outliers", {})):
        if name not in without:
            asked.measure(name, lambda name=name, query=query: asked.ask(f"/datasets/{dataset}/{name}", **query))  # type: ignore[misc]
    asked.measure("export", lambda: asked.download(f"/datasets/{dataset}/embeddings/export"))
    if "map" not in without:
        asked.measure("map", lambda: asked.start(dataset, "embeddings/reduce"))
        arrow = {"Accept": "application/vnd.apache.arrow.stream"}
        asked.measure("coordinates", lambda: asked.download(f"/datasets/{dataset}/embeddings/coordinates", **arrow))


def _small(asked: Asked, folder: Path, dimension: int) -> str:
    """Import the small dataset; returns the path of a question about it."""
    manifest, file = write_set(folder, "small", SMALL_ROWS, dimension)
    dataset = asked.register(manifest)
    asked.finish(asked.send(dataset, file))
    return f"/datasets/{dataset}/similarity/class-00/photograph-000000000.jpg"


def memory_mb(data_dir: Path) -> dict[str, dict[str, int]]:
    """Each process of the service: the most that it ever had, mapped files included, and what is its own now."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(data_dir).encode() not in (process / "environ").read_bytes():
                continue
            name = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        except OSError:  # it has ended, or is somebody else's
            continue
        if "VmHWM" in status and name.startswith("ray::"):
            kilobytes = {"peak": status["VmHWM"], "own": status["RssAnon"]}
            found[f"{name} {process.name}"] = {key: int(text.split()[0]) // 1024 for key, text in kilobytes.items()}
    return found


def disk_mb(data_dir: Path) -> dict[str, int]:
    """What lies in the data directory, by its first name."""
    sizes: dict[str, int] = {}
    for path in data_dir.rglob("*"):
        if path.is_file():
            name = path.relative_to(data_dir).parts[0]
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return {name: size // 2**20 for name, size in sizes.items()}


def show(results: dict[str, float | str], say: Console) -> None:
    """Print the table."""
    table = Table("step", "measured", "to reach at 1 M × 768", "")
    for name, goal in GOALS.items():
        value = results.get(name, "not asked")
        bound = "–" if goal.bound is None else f"{'≥' if goal.is_least else '≤'} {goal.bound:,g} {goal.unit}"
        mark = "" if goal.bound is None or value == "not asked" else "missed"
        if not isinstance(value, str) and goal.bound is not None:
            mark = "pass" if (value >= goal.bound if goal.is_least else value <= goal.bound) else "missed"
        table.add_row(goal.what, value if isinstance(value, str) else f"{value:,g} {goal.unit}", bound, mark)
    say.print(table)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _parts(content: Any) -> Iterator[bytes]:
    while part := content.read(2**20):
        yield part


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument(
        "--without", nargs="+", default=[], choices=["graph", "diverse", "duplicates", "outliers", "map"]
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="million-"))
    try:
        images = folder / "images"
        images.mkdir()
        with running_service(make_minute_checkpoint(folder), images, "fp32", folder) as client:
            asked = Asked(client.url)
            ask_everything(asked, images, options.rows, options.dimension, set(options.without))
            data_dir = folder / "data-fp32"
            about = {"memory_mb": memory_mb(data_dir), "disk_mb": disk_mb(data_dir), "load": os.getloadavg()[0]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(asked.results, Console(width=140))
    print(json.dumps({"rows": options.rows, "dimension": options.dimension, **asked.results, **about}))


if __name__ == "__main__":
    main()
