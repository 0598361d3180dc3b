"""Commands that ask what to act on; each prints a list, or saves it with `--out` as a plan that nobody carries out."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from constellate import Constellate
from constellate.findings import Finding, Found, Keep
from serve_app.cli.commands import ADDRESS, UsageError, add_command
from serve_app.cli.dataset_commands import DatasetName, Limit, Model, Where, find_dataset, writable
from serve_app.cli.embedding import asked
from serve_app.cli.output import Json, aside, counted, print_json, print_neighbours, print_table
from serve_app.cli.service import connect
from serve_app.config import Settings

Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Save the list as a file, .csv or .parquet, instead.", show_default=False),
]


def _above_zero(threshold: float) -> float:
    """The threshold. Raises `BadParameter` for 0, which the service refuses."""
    if not threshold > 0:
        raise typer.BadParameter(f"{threshold:g} is not greater than 0.")
    return threshold


Threshold = Annotated[
    float,
    typer.Option(min=0, max=1, help="Least cosine of two images that are twins, above 0.", callback=_above_zero),
]
Column = Annotated[str, typer.Option(metavar="COLUMN", help="A column, as `constellate columns` lists it.")]
MinSize = Annotated[int, typer.Option(min=2, max=10_000, help="Least images of a cluster.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for run in (duplicates, leaks, mislabeled, clusters, outliers, diverse):
        add_command(app, run, *ADDRESS)


def duplicates(
    settings: Settings,
    dataset: DatasetName,
    *,
    threshold: Threshold = 0.95,
    keep: Annotated[
        Keep | None, typer.Option(help="Say which image of each group to keep, and which to drop.", show_default=False)
    ] = None,
    where: Where = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """List groups of images that are nearly the same.

    The score is the cosine between an image and the most similar one of its group. With --keep, every image to drop is
    a twin of the one that is kept. Of a large dataset, a graph of each image's neighbours is made first.

    For example:

        constellate duplicates photos --threshold 0.98
        constellate duplicates photos --keep largest --out plan.csv
        constellate duplicates photos --where "split = 'train'"
    """

    def ask(client: Constellate, of: str) -> list[list[Any]]:
        if keep is None:
            return _told(client.duplicates(of, threshold=threshold, where=where, model=model))
        return _told(client.twins(of, threshold=threshold, keep=keep, where=where, model=model))

    groups = _found(
        settings,
        dataset,
        "duplicates",
        ask,
        out,
        {"threshold": threshold, "keep": keep, "where": where, "model": model},
        as_json=json,
    )
    more = [] if keep is None else ["action", "reason"]
    rows = (
        (number, n["score"], n["file_name"], *(n[name] for name in more))
        for number, group in enumerate(groups or [], start=1)
        for n in group
    )
    if groups is not None:
        print_table(["group", "score", "file", *more], rows)


def leaks(
    settings: Settings,
    dataset: DatasetName,
    *,
    column: Column = "split",
    threshold: Threshold = 0.95,
    where: Where = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """List twins whose values of a column differ, such as test images that are in the training split too.

    Exact copies come first, then the most similar. Of a large dataset, a graph of each image's neighbours is made
    first.

    For example:

        constellate leaks photos
        constellate leaks photos --column patient --threshold 0.98 --out leaks.csv
    """
    params: dict[str, Any] = {"column": column, "threshold": threshold, "where": where, "model": model}
    found = _found(
        settings, dataset, "leaks", lambda client, of: _told(client.leaks(of, **params)), out, params, as_json=json
    )
    if found is not None:
        rows = (
            (i["exact"], i["score"], i["value"], i["file_name"], i["twin"]["value"], i["twin"]["file_name"])
            for i in found
        )
        print_table(["exact", "score", column, "file", column, "twin"], rows)


def mislabeled(
    settings: Settings,
    dataset: DatasetName,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="List at most this many.")] = 100,
    where: Where = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """List images whose labels may be wrong, the most doubtful first, and the label that fits better.

    Each label is predicted from the vectors of all other images. The score is how much more likely the suggested label
    is than the image's own.

    For example:

        constellate mislabeled photos --limit 20
        constellate mislabeled photos --out doubts.csv
    """
    params: dict[str, Any] = {"limit": limit, "where": where, "model": model}
    found = _found(
        settings, dataset, "mislabeled", lambda client, of: client.mislabeled(of, **params), out, params, as_json=json
    )
    if found is not None:
        rows = ((i["score"], i["label"], i["suggested_label"], i["file_name"]) for i in found)
        print_table(["score", "label", "suggested", "file"], rows)


def clusters(
    settings: Settings,
    dataset: DatasetName,
    *,
    min_size: MinSize = 5,
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Put the clusters' numbers into a column of this name.", show_default=False),
    ] = None,
    phrase: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help="A name to choose from, twice or more.", show_default=False),
    ] = None,
    where: Where = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """List dense groups of images, the largest first, with the image in the middle of each.

    With --column, `NAME = '3'` is then a filter for every command and for the page. A file of --out has one row for
    each image that belongs to a cluster. With --phrase, the name of a cluster is the phrase that most of its images fit
    best, which needs vectors of a model that takes text, such as siglip2-base. Of a large dataset, a graph of each
    image's neighbours is made first.

    For example:

        constellate clusters photos --min-size 20
        constellate clusters photos --column cluster
        constellate clusters photos --model siglip2-base --phrase "a cat" --phrase "a dog" --phrase "a street"
    """
    if column is not None and out is not None:
        raise UsageError("choose --column or --out")

    def ask(client: Constellate, of: str) -> list[Any]:
        if column is not None:
            return list(client.put_clusters(of, column=column, **params))
        answer = client.clusters(of, **params)
        if answer["noise"]:
            aside().print(f"{counted(answer['noise'])} in no cluster", markup=False)
        return list(answer["items"])

    params: dict[str, Any] = {"min_size": min_size, "phrases": phrase or None, "where": where, "model": model}
    found = _found(settings, dataset, "clusters", ask, out, params, as_json=json)
    if found is not None:
        named = ["name", "name_share"] if phrase else []
        rows = (
            (i["cluster"], i["size"], *(i[key] for key in named), i["label"], i["share"], i["medoid"]["file_name"])
            for i in found
        )
        print_table(["cluster", "images", *named, "label", "share", "medoid"], rows)


def outliers(
    settings: Settings,
    dataset: DatasetName,
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Neighbours to compare with.")] = 10,
    limit: Limit = 50,
    where: Where = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """List the images that are least similar to their nearest neighbours, the strangest first.

    The score is the mean cosine between an image and these neighbours. Of a large dataset, a graph of each image's
    neighbours is made first.

    For example:

        constellate outliers photos -k 20 --limit 10
    """
    params: dict[str, Any] = {"k": k, "limit": limit, "where": where, "model": model}
    found = _found(
        settings, dataset, "outliers", lambda client, of: client.outliers(of, **params), out, params, as_json=json
    )
    if found is not None:
        print_neighbours(found, as_json=False)


def diverse(
    settings: Settings,
    dataset: DatasetName,
    *,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="Images to choose.")] = 50,
    labelled: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Keep away from these images.", show_default=False)
    ] = None,
    balance: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Take the column's values in turns.", show_default=False)
    ] = None,
    where: Where = None,
    model: Model = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Choose images that together cover the dataset, for example to label these first.

    The score is the cosine to the nearest image chosen before, those of --labelled included.

    For example:

        constellate diverse photos -n 100 --json
        constellate diverse photos --labelled "tag = 'done'" --balance label
    """
    params: dict[str, Any] = {"n": n, "labelled": labelled, "balance": balance, "where": where, "model": model}
    found = _found(
        settings, dataset, "diverse", lambda client, of: client.diverse(of, **params), out, params, as_json=json
    )
    if found is not None:
        print_neighbours(found, as_json=False)


def _told(found: Found[Any]) -> list[Any]:
    """What was found; a note on standard error tells of images that may have more twins."""
    if found.incomplete:
        note = f"{counted(found.incomplete)} may have more twins: make a graph with a larger k (at most 100)"
        aside().print(note, markup=False, soft_wrap=True)
    return found


def _found(
    settings: Settings,
    dataset: str,
    finding: Finding,
    ask: Callable[[Constellate, str], list[Any]],
    out: Path | None,
    params: dict[str, Any],
    *,
    as_json: bool,
) -> list[Any] | None:
    """The answer to print as a table; None where it is saved or printed already."""
    target = None if out is None else _plan_file(out)
    with connect(settings) as client:
        of = find_dataset(client, dataset)["id"]
        if target is not None:
            asked(client, of, lambda: client.save_plan(of, finding, target, **params), aside(), params["model"])
            print(target)
            return None
        found = asked(client, of, lambda: ask(client, of), aside(), params["model"])
    if as_json:
        print_json(found)
        return None
    return found


def _plan_file(out: Path) -> Path:
    if out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"{out} is neither .csv nor .parquet")
    return writable(out)
