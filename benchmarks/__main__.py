"""`make bench`: every row of the table in `benchmarks/rows.py`, and `benchmarks/results/<date>-<host kind>.json`.

    python -m benchmarks [--full] [--images FOLDER] [--only PART …]

Each part runs alone, in a process of its own. Without `--full`: one round, one model, small sizes. Parts named with
`--only` take their places in the record of the same day and leave its other parts as they are.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.rows import ROWS
from demo.photographs import write_tiles

RESULTS = Path(__file__).parent / "results"
OUT = Path("out/benchmarks")


def photographs(images: Path | None) -> Path:
    """The folder to embed: the user's, or JPEG tiles of the photographs that scikit-image carries."""
    if images is not None:
        return images
    folder = OUT / "photographs"
    if not folder.is_dir():
        for tile in sorted(write_tiles(OUT / "tiles").rglob("*.png")):
            target = folder / tile.relative_to(OUT / "tiles").with_suffix(".jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(tile).convert("RGB").resize((500, 375)).save(target, quality=90)
    return folder


def machine() -> dict[str, object]:
    """What the figures were measured on, no host name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory_gib = psutil.virtual_memory().total / 2**30
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "kind": f"{os.cpu_count()}-core-{platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def parts(*, full: bool, images: Path) -> dict[str, list[str]]:
    """Module and flags of every part of the table."""
    folder = ["--images", str(images)]
    if not full:
        small = ["--most", "48", "--rounds", "1", "--quick"]
        return {
            "throughput dinov2-small": ["throughput", *folder, *small],
            "families": ["families", *folder, "--models", "dinov3-small", "--most", "32", "--rounds", "1"],
            "parity": ["parity", *folder, "--most", "32"],
            "writer": ["writer", "--rows", "5000", "--rounds", "1"],
            "search": ["search", "--rows", "10000", "100000", "--queries", "30", "--curate"],
            "reduce": ["reduce", "--rows", "1000", "10000", "--repeats", "1"],
        }
    precisions = ["--precisions", "fp32", "int8", "bf16"]
    return {
        "throughput dinov2-small": ["throughput", *folder, *precisions, "--most", "480", "--idle-s", "300"],
        "throughput dinov2-base": ["throughput", *folder, *precisions[:3], "--model", "dinov2-base", "--most", "96"],
        "families": ["families", *folder],
        "parity": ["parity", *folder],
        "writer": ["writer"],
        "search": ["search", "--rows", "10000", "100000", "1000000", "--curate"],
        "reduce": ["reduce", "--rows", "1000", "10000", "100000", "--repeats", "1"],
        "sse": ["sse", *folder],
        "memory": ["memory"],
    }


class Record:
    """A file of `benchmarks/results`: written after every part, so that what was measured is never lost."""

    def __init__(self, file: Path, host: dict[str, object], *, goes_on: bool) -> None:
        self._file = file
        self._host = host
        self.results: dict[str, Any] = {"gpu": "no GPU here; `python -m benchmarks.gpu` runs where there is one"}
        if goes_on and file.is_file():
            self.results |= json.loads(file.read_text())["results"]

    def put(self, part: str, result: dict[str, Any] | str) -> None:
        """Take a part's figures, or the sentence that says why there are none."""
        self.results[part] = result
        columns = ("row", "measured", "reach", "mark")
        record = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": self._host,
            "table": [dict(zip(columns, (row.what, *row.verdict(self.results)), strict=True)) for row in ROWS],
            "results": self.results,
        }
        self._file.parent.mkdir(exist_ok=True)
        self._file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def measure(module: str, flags: list[str]) -> dict[str, Any] | str:
    """What a part prints; a sentence when it fails, and the others go on."""
    load = round(os.getloadavg()[0], 2)
    run = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *flags], stdout=subprocess.PIPE, text=True)
    if run.returncode:
        return f"it ended with status {run.returncode}"
    result: dict[str, Any] = json.loads(run.stdout)
    return result | {"load_before": load}


def show(results: dict[str, Any], host: dict[str, object], say: Console) -> None:
    """Print every row with its goal and mark."""
    say.print(
        f"{host['processor']}, {host['cores']} cores, {host['memory_gib']} GiB, load {host['load_before']} before; "
        "CPU, 224 px, JPEG decode included; loop in batches of 32, service in passes of 4; medians",
        markup=False,
    )
    table = Table("row", "measured", "to reach", "")
    for row in ROWS:
        table.add_row(row.what, *row.verdict(results))
    say.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every row, in about an hour; else in three minutes")
    parser.add_argument("--images", type=Path, help="a folder of JPEG photographs")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts or their modules")
    options = parser.parse_args()
    say = Console(width=None if sys.stdout.isatty() else 160)
    host = machine()
    wanted = parts(full=options.full, images=photographs(options.images).resolve())
    if options.only:
        wanted = {name: flags for name, flags in wanted.items() if {name, flags[0]} & set(options.only)}
    today = f"{datetime.now(UTC):%Y-%m-%d}-{host['kind']}{'' if options.full else '-quick'}.json"
    record = Record(RESULTS / today, host, goes_on=bool(options.only))
    for name, (module, *flags) in wanted.items():
        say.print(f"measuring {name}", markup=False)
        begin = time.monotonic()
        record.put(name, measure(module, flags))
        say.print(f"  took {time.monotonic() - begin:.0f} s", markup=False)
    show(record.results, host, say)
    say.print(f"written to benchmarks/results/{today}", markup=False)


if __name__ == "__main__":
    main()
