"""The service over the loop and over the bare forward pass, and all it does for single images, in one call.

    python -m benchmarks.throughput --model dinov2-small --images FOLDER --rounds 3 --idle-s 300

Every round runs each contender once, in turn, on an otherwise idle machine; the service of a precision stays up
between rounds with its replicas warm, and sleeps while the others run. Ratios are taken round by round. With
`--idle-s`, a job of 120 images comes first, after the service has been idle for so long.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks import callers
from benchmarks.checkpoints import ARCHITECTURES, random_checkpoint
from benchmarks.contenders import image_files
from constellate import Constellate
from demo.command import free_port
from serve_app.cli.service import LocalService
from serve_app.config import Settings
from serve_app.embedding.loading import precisions

CORES = os.cpu_count() or 1
PLAIN = {
    "forward 1 process": {"processes": 1, "threads": CORES, "batch": 8},
    "forward processes batch 1": {"processes": CORES, "threads": 1, "batch": 1},
    "forward processes batch 4": {"processes": CORES, "threads": 1, "batch": 4},
}
"""The model of transformers alone: one process with all cores, and one process of one thread a core."""
QUICK_PLAIN = {name: PLAIN[name] for name in ("forward processes batch 4",)}
AFTER_IDLE_IMAGES = 120
SINGLE = {"processes": 1, "threads": CORES, "batch": 1}
FORWARD_S = 6.0
THREAD_LIMITS = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}


def contender(name: str, checkpoint: Path, images: Path, **options: float | str) -> dict[str, float]:
    """What a contender measured, run in processes of its own; `rate` is its images/s."""
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "benchmarks.contenders", name, "--checkpoint", str(checkpoint)]
    # A limit in the caller's environment would hold the loop to fewer cores than its user has.
    free = {key: value for key, value in os.environ.items() if key not in THREAD_LIMITS}
    output = subprocess.run(
        [*command, "--images", str(images), *flags], check=True, capture_output=True, text=True, env=free
    )
    measured: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return measured | {"rate": measured["images"] / measured["seconds"]}


def some_images(images: Path, most: int, target: Path) -> Path:
    """A folder with at most so many of the images, evenly spread."""
    files = image_files(images)
    target.mkdir(parents=True)
    for number, file in enumerate(files[:: -(-len(files) // most)]):
        shutil.copy(file, target / f"{number:05d}.jpg")
    return target


@contextmanager
def running_service(
    checkpoint: Path, images: Path, precision: str, folder: Path, *, min_replicas: int | None = None
) -> Iterator[Constellate]:
    """A service of its own with the checkpoint as its default model."""
    settings = Settings.from_environment(
        {},
        port=free_port("127.0.0.1"),
        data_dir=folder / f"data-{precision}",
        dataset_roots=(images,),
        model=str(checkpoint),
        precision=precision,
        device="cpu",
        min_replicas=min_replicas,
    )
    with LocalService(settings, Console(stderr=True)) as client:
        yield client


def service_job(client: Constellate, dataset_id: str) -> tuple[float, float]:
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


def warm_up(client: Constellate, dataset_id: str, seconds: float) -> None:
    """Run jobs until the autoscaler has had its time."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        service_job(client, dataset_id)


def first_map_extra_s(client: Constellate, dataset_id: str) -> float:
    """Seconds that the first map of a service takes longer than its second."""
    times_s = []
    for _ in range(2):
        begin = time.perf_counter()
        client.reduce(dataset_id, redraw=True)
        *_, progress = client.events(dataset_id, "reduce")
        if progress.status != "complete":
            raise RuntimeError(f"the map ended {progress.status}: {progress.message}")
        times_s.append(time.perf_counter() - begin)
    return times_s[0] - times_s[1]


class Contest:
    """Rounds of one service against the loop and the bare model; `figures` holds a list of one value a round."""

    def __init__(self, checkpoint: Path, images: Path, precision: str, plain: dict[str, dict[str, int]]) -> None:
        self._checkpoint = checkpoint
        self._images = images
        self._precision = precision
        self._plain = plain if precision == "fp32" else {}
        self.figures: dict[str, list[float]] = {}

    def _note(self, **figures: float) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def run(self, rounds: int, folder: Path, idle_s: float) -> dict[str, list[float]]:
        """Start a service, warm it up, let it be idle, run the rounds."""
        begin = time.perf_counter()
        with running_service(self._checkpoint, self._images, self._precision, folder) as client:
            self._note(start_s=time.perf_counter() - begin)
            dataset_id = client.register("benchmark", self._images)["id"]
            service_job(client, dataset_id)
            self._note(first_map_extra_s=first_map_extra_s(client, dataset_id))
            if idle_s:
                self._after_idleness(client, folder, idle_s)
            requests = callers.bodies(self._checkpoint.name, self._images)
            for _ in range(rounds):
                self._round(client, dataset_id, requests)
        return self.figures

    def _after_idleness(self, client: Constellate, folder: Path, idle_s: float) -> None:
        few = some_images(self._images, AFTER_IDLE_IMAGES, self._images / "few")
        dataset_id = client.register("few", few)["id"]
        time.sleep(idle_s)
        rate, first_s = service_job(client, dataset_id)
        plain = contender("loop", self._checkpoint, few)["rate"]
        own = self._forward(processes=CORES, threads=1, batch=4, own=self._precision)["rate"]
        self._note(idle_over_loop=rate / plain, idle_over_own_forward=rate / own, idle_first_batch_s=first_s)
        shutil.rmtree(few)

    def _round(self, client: Constellate, dataset_id: str, requests: list[dict[str, str]]) -> None:
        rate, first_s = service_job(client, dataset_id)
        loop = contender("loop", self._checkpoint, self._images)["rate"]
        self._note(service=rate, loop=loop, over_loop=rate / loop, first_batch_s=first_s)
        own = self._forward(processes=CORES, threads=1, batch=4, own=self._precision)["rate"]
        self._note(own_forward=own, over_own_forward=rate / own)
        best = 0.0
        for name, options in self._plain.items():
            plain = self._forward(**options)["rate"]
            best = max(best, plain)
            self._note(**{name: plain})
        if not self._plain:
            return
        self._note(over_forward=rate / max(best, own), over_plain_forward=rate / best)
        p50_ms, bare_ms = callers.single_p50_ms(client, requests), self._forward(**SINGLE)["p50_ms"]
        own_ms = self._forward(processes=1, threads=1, batch=1, own=self._precision)["p50_ms"]
        self._note(single_ms=p50_ms, bare_ms=bare_ms, own_bare_ms=own_ms)
        self._note(single_over_bare=p50_ms / bare_ms, single_over_own=p50_ms / own_ms)
        together = callers.concurrent_rate(client, requests, n_requests=max(128, len(requests)))
        again = service_job(client, dataset_id)[0]
        self._note(callers_64=together, callers_over_job=together / again)

    def _forward(self, **options: float | str) -> dict[str, float]:
        return contender("forward", self._checkpoint, self._images, seconds=FORWARD_S, **options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=tuple(ARCHITECTURES), default="dinov2-small")
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--most", type=int, default=240, help="images of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle-s", type=float, default=0.0, help="idleness before the first round")
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--quick", action="store_true", help="one kind of plain forward pass")
    parser.add_argument("--checkpoints", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    checkpoint = random_checkpoint(options.checkpoints.resolve(), options.model)
    setting = {"model": options.model, "size_px": 224, "device": "cpu"}
    measured: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        images = some_images(options.images, options.most, Path(name) / "images")
        for precision in options.precisions:
            if precision not in precisions("cpu"):
                measured[precision] = f"this CPU cannot compute in {precision}"
                continue
            contest = Contest(checkpoint, images, precision, QUICK_PLAIN if options.quick else PLAIN)
            rounds = contest.run(options.rounds, Path(name), options.idle_s)
            medians = {figure: round(statistics.median(values), 3) for figure, values in rounds.items()}
            listed = {figure: [round(value, 3) for value in values] for figure, values in rounds.items()}
            measured[precision] = medians | {"rounds": listed}
        setting["images"] = len(image_files(images))
    print(json.dumps(setting | {"precisions": measured}, indent=2))


if __name__ == "__main__":
    main()
