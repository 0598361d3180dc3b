"""`make bench`: every row of the contract's table, and `benchmarks/results/<date>-<host kind>.json`.

    python -m benchmarks [--quick] [--images FOLDER]

Each part runs alone, in a process of its own; `--quick` takes fewer rounds and smaller sizes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.table import Table

from serve_app.photographs import write_tiles

RESULTS = Path(__file__).parent / "results"
OUT = Path("out/benchmarks")


def part(module: str, *flags: str) -> dict[str, Any]:
    """The JSON that one part prints."""
    Console(stderr=True).print(f"measuring {module} {' '.join(flags)}", markup=False)
    run = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *flags], check=True, stdout=subprocess.PIPE)
    measured: dict[str, Any] = json.loads(run.stdout)
    return measured


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


def host_kind() -> str:
    """Cores and processor family, no host name."""
    return f"{os.cpu_count()}-core-{platform.machine()}"


def measure(*, quick: bool, images: Path) -> dict[str, Any]:
    """Every part of the table."""
    rounds = "1" if quick else "3"
    results: dict[str, Any] = {}
    for model in ["dinov2-small"] if quick else ["dinov2-small", "dinov2-base"]:
        precisions = ["fp32"] if quick else ["fp32", "int8", "bf16"]
        flags = ["--model", model, "--images", str(images), "--rounds", rounds, "--precisions", *precisions]
        results[f"throughput {model}"] = part("throughput", *flags)
    results["writer"] = part("writer", "--rows", "5000" if quick else "20000", "--rounds", rounds)
    sizes = ["10000", "100000"] if quick else ["10000", "100000", "1000000"]
    results["search"] = part("search", "--rows", *sizes, "--repeats", rounds)
    results["reduce"] = part("reduce", "--rows", *(["1000", "10000"] if quick else ["1000", "10000", "100000"]))
    return results


def show(results: dict[str, Any]) -> None:
    """Print the ratios and figures as one table."""
    table = Table("row", "figure", "value")
    for row, measured in results.items():
        for figure, value in _flat(measured):
            table.add_row(row, figure, str(value))
    Console().print(table)


def _flat(measured: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in measured.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key} · ")
        elif not isinstance(value, list):
            rows.append((f"{prefix}{key}", value))
    return rows


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under three minutes")
    parser.add_argument("--images", type=Path, help="a folder of JPEG photographs")
    options = parser.parse_args()
    results = measure(quick=options.quick, images=photographs(options.images))
    show(results)
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    record = {"measured_at": now.isoformat(timespec="seconds"), "host": host_kind(), "results": results}
    target = RESULTS / f"{now:%Y-%m-%d}-{host_kind()}.json"
    target.write_text(json.dumps(record, indent=2) + "\n")
    print(f"written to {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")


if __name__ == "__main__":
    main()
