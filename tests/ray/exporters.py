"""What Ray's exporters tell Prometheus, and what processes write to their logs."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import ray

from tests.faults.wait import PATIENCE_S

EXPORTED_EVERY_S = 4.0
"""What a node shows of a process is forgotten after twice this time: on a busy machine exports come late, and of one
second's series some were always missing."""

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Series = list[tuple[str, dict[str, str], float]]
Known = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape() -> Series:
    """Every sample that the nodes of the connected cluster export now: name, labels, value."""
    series: Series = []
    for node in ray.nodes():
        if node["Alive"]:
            text = httpx.get(
                f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=PATIENCE_S
            ).text
            for match in map(_SAMPLE.fullmatch, text.splitlines()):
                if match:
                    series.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return series


def total(series: Series, metric: str, **labels: str) -> float | None:
    """The sum of a metric's samples that have these labels; None without one."""
    found = [value for name, has, value in series if name == metric and labels.items() <= has.items()]
    return sum(found) if found else None


def increase(before: Series, now: Series, metric: str, **labels: str) -> float:
    """What a counter gained, process by process: one that has left since takes nothing away."""
    then = {(name, *sorted(has.items())): value for name, has, value in before}
    return sum(
        value - then.get((name, *sorted(has.items())), 0.0)
        for name, has, value in now
        if name == metric and labels.items() <= has.items()
    )


def settled(*counters: str) -> Series:
    """What is exported once these counters change no more for longer than exports take to come."""
    deadline = time.monotonic() + PATIENCE_S
    known: Known = {}
    earlier = _add(known, counters)
    while True:
        time.sleep(1.5 * EXPORTED_EVERY_S)
        if (now := _add(known, counters)) == earlier:
            return now
        assert time.monotonic() < deadline, "the counters never settle"
        earlier = now


def await_counters(figures: Callable[[Series], list[float]], expected: list[float], *counters: str) -> Series:
    """Scrape until these figures of what the counters have ever shown are as expected, and return what was shown."""
    deadline = time.monotonic() + PATIENCE_S
    known: Known = {}
    while (shown := figures(series := _add(known, counters))) != expected:
        assert time.monotonic() < deadline, f"{shown} instead of {expected}"
        time.sleep(1.0)  # a node spends a quarter of a second on an answer
    return series


def await_series(is_there: Callable[[Series], bool]) -> Series:
    """Scrape until the condition holds, and return what was scraped."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_there(series := scrape()):
        ours = [(name, has.get("outcome") or has.get("status"), value) for name, has, value in series if _is_ours(name)]
        assert time.monotonic() < deadline, ours
        time.sleep(1.0)
    return series


def _add(known: Known, counters: tuple[str, ...]) -> Series:
    """Bring up to date what each series of these counters showed last: one whose export is late is not there at all."""
    for name, has, value in scrape():
        if name in counters:
            known[name, frozenset(has.items())] = value
    return [(name, dict(labels), value) for (name, labels), value in known.items()]


def _is_ours(name: str) -> bool:
    return name.startswith(("ray_dino", "ray_writer", "ray_jobs", "ray_sse")) and "bucket" not in name


def session_dir() -> Path:
    """Where the connected cluster keeps its logs and the file that tells Prometheus of its nodes."""
    return Path(ray._private.worker._global_node.get_session_dir_path())


def log_lines() -> Iterator[dict[str, Any]]:
    """Every structured line of every process of the cluster."""
    for file in (session_dir() / "logs").glob("worker-*.err"):
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith('{"time"'):
                yield json.loads(line)
