"""A model of each family over a user's loop with the same checkpoint, and how soon a text has its vector.

    python -m benchmarks.families --images FOLDER [--models siglip2-base …] [--most 96] [--rounds 3]

Every model has a service of its own; a round is a job and a loop, one after the other on an otherwise idle machine.
Texts are sent one at a time to `POST /v1/embeddings`.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import callers
from benchmarks.checkpoints import FAMILIES, random_checkpoint
from benchmarks.throughput import contender, running_service, service_job, some_images
from constellate import Constellate
from serve_app.embedding import families

TEXTS = ("a cat", "a dog on a beach", "a red chair beside a window of an old house", "two birds, long-legged")
N_TEXTS = 40


def text_p50_ms(client: Constellate, model: str) -> float:
    """Median milliseconds of a text."""
    requests = [{"model": model, "input": text, "encoding_format": "base64"} for text in TEXTS]
    callers.single_p50_ms(client, requests, len(requests))  # loads the text tower
    return callers.single_p50_ms(client, requests, N_TEXTS)


def measure(checkpoint: Path, images: Path, rounds: int, precision: str, *, takes_text: bool) -> dict[str, object]:
    """Medians over the rounds, which are listed too."""
    figures: dict[str, list[float]] = {"service": [], "loop": [], "over_loop": []}
    with tempfile.TemporaryDirectory() as name, running_service(checkpoint, images, precision, Path(name)) as client:
        dataset_id = client.register("benchmark", images)["id"]
        service_job(client, dataset_id)
        text = text_p50_ms(client, checkpoint.name) if takes_text else "the model embeds images only"
        for _ in range(rounds):
            rate = service_job(client, dataset_id)[0]
            loop = contender("loop", checkpoint, images)["rate"]
            for figure, value in (("service", rate), ("loop", loop), ("over_loop", rate / loop)):
                figures[figure].append(round(value, 3))
    medians = {figure: statistics.median(values) for figure, values in figures.items()}
    return medians | {"text_p50_ms": text, "rounds": figures}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of JPEG photographs")
    parser.add_argument("--models", nargs="+", choices=tuple(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--most", type=int, default=96, help="images of a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--checkpoints", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    measured: dict[str, object] = {"size_px": 224, "device": "cpu", "precision": options.precision}
    with tempfile.TemporaryDirectory() as name:
        images = some_images(options.images, options.most, Path(name) / "images")
        for model in options.models:
            begin = time.monotonic()
            checkpoint = random_checkpoint(options.checkpoints.resolve(), model)
            takes_text = families.of_known(model).text is not None
            found = measure(checkpoint, images, options.rounds, options.precision, takes_text=takes_text)
            measured[model] = found | {"took_s": round(time.monotonic() - begin)}
    print(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
