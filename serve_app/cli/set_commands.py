"""Commands on a dataset's sets of vectors: one for each model."""

from typing import Annotated

import typer

from serve_app.cli.commands import ADDRESS, UsageError, add_command
from serve_app.cli.dataset_commands import DatasetName, find_dataset, known_model
from serve_app.cli.output import Json, counted, print_json, print_table
from serve_app.cli.service import connect
from serve_app.config import Settings

SetModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The model of the set, as `constellate sets` lists it.",
        show_default=False,
        callback=known_model,
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for run in (sets, delete):
        add_command(app, run, *ADDRESS)


def sets(settings: Settings, dataset: DatasetName, *, json: Json = False) -> None:
    """List the sets of vectors of a dataset, one for each model, the one made last first.

    Commands without --model ask the first.

    For example:

        constellate sets photos
    """
    with connect(settings) as client:
        found = client.embeddings(find_dataset(client, dataset)["id"])["sets"]
    if json:
        print_json(found)
        return
    rows = ((made["model_name"], made["embedding_count"], "yes" if made["has_reduction"] else "no") for made in found)
    print_table(["model", "vectors", "map"], rows)


def delete(settings: Settings, dataset: DatasetName, *, model: SetModel = None) -> None:
    """Delete the vectors that a model made of a dataset, with their map and graph.

    Images, columns, tags and the sets of other models stay. To have the set again, all images are embedded again.

    For example:

        constellate delete photos --model clip-base
    """
    if model is None:
        raise UsageError("say which set: --model NAME (see `constellate sets`)")
    with connect(settings) as client:
        found = find_dataset(client, dataset)
        n_vectors = client.embeddings(found["id"], model=model)["embedding_count"]
        client.delete_embeddings(found["id"], model)
    print(f"Deleted {counted(n_vectors, 'vector')} of {model}.")
