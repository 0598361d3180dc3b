"""Commands on an existing dataset: search it, export it, import vectors, cancel its job."""

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from constellate import Constellate, JobFailed, Refused
from constellate.dataset_sources import absolute, is_of
from constellate.following import follow
from constellate.records import DatasetInfo
from constellate.routes import ExportFormat
from serve_app.cli.commands import ADDRESS, UsageError, add_command
from serve_app.cli.output import Json, console, print_neighbours, summarize_skips, tell
from serve_app.cli.progress import watch
from serve_app.cli.service import connect
from serve_app.config import Settings

DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="Its folder, its name, or its id.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="Show at most this many.")]
Where = Annotated[
    str | None,
    typer.Option(metavar="FILTER", help="Only these images: `label = 'cat' AND width > 500`.", show_default=False),
]


def known_model(model: str | None) -> str | None:
    """A model's name as the service knows it: the folder of a checkpoint becomes absolute. None stays."""
    if model is None:
        return None
    folder, pooling = re.fullmatch(r"(.*?)(\?pooling=.*)?", model, re.DOTALL).groups("")  # type: ignore[union-attr]
    is_folder = os.sep in folder and os.path.isdir(os.path.expanduser(folder))
    return f"{Path(folder).expanduser().resolve()}{pooling}" if is_folder else model


Model = Annotated[
    str | None,
    typer.Option(
        help="Ask the vectors of this model.",
        show_default="the model of the vectors made last",
        callback=known_model,
    ),
]

Notify = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Tell this URL, below DATASET_ROOTS, when a job ends (NOTIFY_KEY signs).",
        show_default=False,
    ),
]

SUFFIX_OF_FORMAT: dict[ExportFormat, str] = {
    "parquet": "parquet",
    "arrow": "arrow",
    "csv": "csv",
    "coco": "json",
    "yolo": "txt",
    "yolo-zip": "zip",
    "list": "txt",
}
FORMAT_OF_SUFFIX: dict[str, ExportFormat] = {
    ".arrow": "arrow",
    ".csv": "csv",
    ".json": "coco",
    ".txt": "list",
    ".zip": "yolo-zip",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for run in (cancel, search, export):
        add_command(app, run, *ADDRESS)
    add_command(app, import_vectors, *ADDRESS, name="import")


def find_dataset(client: Constellate, text: str) -> DatasetInfo:
    """The dataset with this id, name or folder.

    Raises:
        UsageError: there is no such dataset; the message names existing ones.
    """
    datasets = client.datasets()
    for matches in (lambda d: d["id"] == text, lambda d: d["name"] == text, lambda d: is_of(d, absolute(text))):
        if found := next(filter(matches, datasets), None):
            return found
    names = ", ".join(repr(dataset["name"]) for dataset in datasets[:10])
    raise UsageError(f"no dataset is {text!r}; there is {names or 'none yet'} (see `constellate status`)")


def cancel(
    settings: Settings,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET|JOB", help="A dataset's folder, name or id, or the id of a job.")
    ],
) -> None:
    """Cancel the running job of a dataset, or the job with an id, as `constellate jobs` lists it.

    The dataset keeps the vectors that it had before. The exit code is 0 even if no job runs. A folder that is being
    listed for the first time is no dataset yet; its job has an id.

    For example:

        constellate cancel photos
    """
    with connect(settings) as client:
        if any(job["id"] == dataset for job in client.jobs()):
            _cancel_job(client, dataset)
            return
        found = find_dataset(client, dataset)
        try:
            client.cancel(found["id"])
        except Refused as refused:
            if refused.status != 409:
                raise
            print(f"No job of {found['name']!r} is running.")
        else:
            print(f"Cancelled the job of {found['name']!r}.")


def _cancel_job(client: Constellate, job_id: str) -> None:
    try:
        client.cancel_job(job_id)
    except Refused as refused:
        if refused.status != 409:
            raise
        print(f"Job {job_id} is over.")
    else:
        print(f"Cancelled job {job_id}.")


def search(
    settings: Settings,
    dataset: DatasetName,
    query: Annotated[str, typer.Argument(metavar="IMAGE|WORDS", help="An image file, or words that describe images.")],
    *,
    limit: Limit = 10,
    where: Where = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Find the images of a dataset that are most similar to an image file, or that fit words best.

    The score is the cosine of the two vectors: 1 for the same image. Words need vectors of a model that takes text,
    such as siglip2-base. What names a file is an image, and so is what looks like the path of one.

    For example:

        constellate search photos query.jpg
        constellate search photos query.jpg --limit 3 --json
        constellate search photos "a red chair"
        constellate search photos "a red chair" --model siglip2-base
    """
    is_file = os.path.isfile(query)  # Path refuses long words
    if not is_file and _names_a_file(query):
        raise UsageError(f"no such file: {query}")
    with connect(settings) as client:
        dataset_id = find_dataset(client, dataset)["id"]
        image, text = (query, None) if is_file else (None, query)
        found = client.search(dataset_id, image, text=text, limit=limit, where=where, model=model)
    tell(found.notices)
    print_neighbours(found, as_json=json)


def _names_a_file(query: str) -> bool:
    """Whether a query looks like a path and not like words."""
    return re.fullmatch(r"[~./].*|.*\.[A-Za-z0-9]{2,5}", query) is not None


def export(
    settings: Settings,
    dataset: DatasetName,
    *,
    out: Annotated[Path | None, typer.Option(help="The file to write.", show_default="DATASET.parquet")] = None,
    format: Annotated[ExportFormat | None, typer.Option(help="Follows from the file's name.")] = None,
    where: Where = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="Put vectors and map into CSV, too.")] = False,
    model: Model = None,
) -> None:
    """Write a dataset, or the images that a filter chooses, to a file for another tool.

    parquet and arrow hold vectors, map, columns and tags. csv holds columns and tags. coco keeps the entries of a COCO
    file, and makes categories of the labels of other datasets. yolo-zip has a COCO file's boxes as YOLO takes them,
    with data.yaml. yolo has the path of an image in each line, list the name below the dataset's folder. Only parquet,
    arrow and --vectors need vectors.

    For example:

        constellate export photos
        constellate export photos --out vectors.arrow
        constellate export photos --model siglip2-base --out words.parquet
        constellate export photos --format coco --where "tag = 'keep'" --out keep.json
        constellate export photos --where "tag = 'keep'" --out keep.zip
        constellate export photos --format list --where "label = 'cat'" --out cats.txt
    """
    kind: ExportFormat = format or FORMAT_OF_SUFFIX.get(out.suffix if out else "", "parquet")
    with connect(settings) as client:
        found = find_dataset(client, dataset)
        target = writable(out or Path(f"{file_stem(found['name'])}.{SUFFIX_OF_FORMAT[kind]}"))
        client.export(found["id"], target, format=kind, where=where, with_vectors=vectors, model=model)
    print(target)


def import_vectors(
    settings: Settings,
    dataset: DatasetName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet or Arrow: what `export` wrote, or your own.")],
    *,
    space_key: Annotated[
        str | None, typer.Option(help="Which space the vectors are of.", show_default="what the file says")
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="What made the vectors.", show_default="what the file says")
    ] = None,
    notify: Notify = None,
) -> None:
    """Make the vectors and the map of a file a dataset's; those of the same model are replaced.

    The file has the columns sample_id or file_name, vector (a list of float32 or float64 of any length), and optionally
    x and y. Only vectors of equal space keys are compared. The command lists rows that cannot be used.

    For example:

        constellate import photos photos.parquet
        constellate import photos clip.parquet --space-key clip-b32/openai --model-name clip-b32
    """
    if not file.is_file():
        raise UsageError(f"no such file: {file}")
    with connect(settings) as client:
        found = find_dataset(client, dataset)
        job_id = client.import_vectors(found["id"], file, space_key=space_key, model_name=model_name, notify_url=notify)
        last = watch(follow(client, found["id"], job_id, "import"), console(), "Importing")
        summarize_skips(list(client.skipped(found["id"])), console(), "row")
    if last.status != "complete":
        raise JobFailed(last)
    print(last.message)


def writable(target: Path) -> Path:
    """Make a path absolute, and check that a file can be written there. Raises `UsageError`."""
    target = target.expanduser().absolute()
    if not target.parent.is_dir():
        raise UsageError(f"no such folder: {target.parent}")
    if target.is_dir():
        raise UsageError(f"{target} is a folder; name a file")
    if not os.access(target.parent, os.W_OK):
        raise UsageError(f"files cannot be written to {target.parent}; choose another place with --out")
    return target


def file_stem(name: str) -> str:
    """A file name for a dataset in the current folder, made from the dataset's name."""
    return name.replace("/", "_").lstrip(".") or "dataset"
