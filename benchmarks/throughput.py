"""Images per second of the service over the loop and over the bare forward pass, interleaved in one call.

    python -m benchmarks.throughput --model dinov2-small --images FOLDER --rounds 3

Every round runs each contender once, in turn, on an otherwise idle machine; the service stays up between
rounds with its replicas warm, and sleeps while the others run. The ratio is taken round by round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks.checkpoints import ARCHITECTURES, random_checkpoint
from benchmarks.contenders import image_files
from serve_app.cli.service import LocalService
from serve_app.client import Client
from serve_app.config import Settings
from serve_app.demo import free_port

FORWARD_VARIANTS = {
    "forward, one process, all cores": {"processes": 1, "threads": os.cpu_count() or 1, "batch": 8},
    "forward, one-thread processes, batch 1": {"processes": os.cpu_count() or 1, "threads": 1, "batch": 1},
    "forward, one-thread processes, batch 4": {"processes": os.cpu_count() or 1, "threads": 1, "batch": 4},
}


def contender(name: str, checkpoint: Path, images: Path, **options: float) -> float:
    """Images/s of a contender, run in processes of its own."""
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "benchmarks.contenders", name, "--checkpoint", str(checkpoint)]
    output = subprocess.run([*command, "--images", str(images), *flags], check=True, capture_output=True, text=True)
    measured = json.loads(output.stdout.splitlines()[-1])
    return float(measured["images"] / measured["seconds"])


@contextmanager
def running_service(checkpoint: Path, images: Path, precision: str, folder: Path) -> Iterator[Client]:
    """A service of its own with the checkpoint as its default model."""
    settings = Settings.from_environment(
        {},
        port=free_port("127.0.0.1"),
        data_dir=folder / f"data-{precision}",
        dataset_roots=(images,),
        model=str(checkpoint),
        precision=precision,
        device="cpu",
    )
    with LocalService(settings, Console(stderr=True)) as client:
        yield client


def service_job(client: Client, dataset_id: str) -> tuple[float, float]:
    """Images/s of a generate job from POST to `complete`, and seconds to its first committed batch."""
    begin = time.perf_counter()
    client.generate(dataset_id, force=True)
    first_s = 0.0
    for progress in client.events(dataset_id, "embed"):
        if not first_s and progress.processed:
            first_s = time.perf_counter() - begin
    if progress.status != "complete":
        raise RuntimeError(f"the job ended {progress.status}: {progress.message}")
    return progress.processed / (time.perf_counter() - begin), first_s


def warm_up(client: Client, dataset_id: str, seconds: float) -> None:
    """Run jobs until the autoscaler has had its time."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        service_job(client, dataset_id)


def measure(checkpoint: Path, images: Path, *, rounds: int, precisions: list[str]) -> dict[str, list[float]]:
    """Images/s of every contender, one figure a round."""
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            with running_service(checkpoint, images, precision, Path(folder)) as client:
                dataset_id = client.register("benchmark", images)["id"]
                warm_up(client, dataset_id, seconds=25)
                runs: dict[str, Callable[[], float]] = {
                    f"loop beside {precision}": lambda: contender("loop", checkpoint, images),
                    f"service {precision}": lambda: service_job(client, dataset_id)[0],  # noqa: B023
                }
                if precision == "fp32":
                    for name, options in FORWARD_VARIANTS.items():
                        runs[name] = lambda options=options: contender("forward", checkpoint, images, **options)
                for _ in range(rounds):
                    for name, run in runs.items():
                        rates.setdefault(name, []).append(run())
    return rates


def report(rates: dict[str, list[float]], precisions: list[str]) -> dict[str, object]:
    """Medians, and the service's ratios round by round."""
    medians = {name: round(statistics.median(values), 2) for name, values in rates.items()}
    ratios: dict[str, float] = {}
    for precision in precisions:
        pairs = zip(rates[f"service {precision}"], rates[f"loop beside {precision}"], strict=True)
        ratios[f"service {precision} over loop"] = round(statistics.median(a / b for a, b in pairs), 3)
    if "fp32" in precisions:
        best = max((name for name in rates if name.startswith("forward")), key=medians.__getitem__)
        pairs = zip(rates["service fp32"], rates[best], strict=True)
        ratios[f"service fp32 over best {best}"] = round(statistics.median(a / b for a, b in pairs), 3)
    return {
        "images_per_s": medians,
        "ratios": ratios,
        "rounds": {k: [round(v, 2) for v in r] for k, r in rates.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="dinov2-small")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--checkpoints", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    checkpoint = random_checkpoint(options.checkpoints.resolve(), options.model)
    images = options.images.resolve()
    rates = measure(checkpoint, images, rounds=options.rounds, precisions=options.precisions)
    setting = {"model": options.model, "size_px": 224, "images": len(image_files(images)), "device": "cpu"}
    print(json.dumps(setting | report(rates, options.precisions), indent=2))


if __name__ == "__main__":
    main()
