"""`constellate bulk SRC --out DIR` makes vectors of sets that are too large for the database."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.cli.commands import add_command
from serve_app.cli.output import counted
from serve_app.config import Settings

if TYPE_CHECKING:
    from deployments.bulk import BulkState


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    add_command(app, bulk, *Settings.model_fields)


def bulk(
    settings: Settings,
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A folder of images or of Parquet files, or its URI (s3://…).")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the parts; made if need be.", metavar="DIR")],
    *,
    column: Annotated[str, typer.Option(help="Of Parquet files: the column with the images' bytes.")] = "image",
    part_images: Annotated[int, typer.Option(min=1, help="Image files of one part.")] = 10_000,
    actors: Annotated[int, typer.Option(min=1, help="Processes that read images and wait for vectors.")] = 2,
) -> None:
    """Embed a set of any size from files into files, without the database.

    The command uses Ray Data on the running service's cluster, on the cluster that RAY_ADDRESS names, or on a temporary
    one. It writes DIR/part-00000.parquet with the source's columns, without the images' bytes, and `vector`. It lists
    images that could not be embedded, with the reason, in DIR/part-00000.skipped.jsonl. If you repeat the command, it
    embeds only parts that are missing, or whose model or files have changed: a file's name, size or time of change.

    For example:

        constellate bulk /data/photos --out vectors/
        constellate bulk s3://bucket/tables --column image --out vectors/
    """
    from serve_app import main

    def tell(state: "BulkState") -> None:
        print(f"{state.done} of {counted(state.parts, 'part')}: {state.embedded:,} embedded, {state.skipped:,} skipped")

    place = source if "://" in source else str(Path(source).expanduser().resolve())
    target = out.expanduser().resolve()
    end = main.bulk(settings, place, target, column=column, part_images=part_images, actors=actors, on_part=tell)
    there = f"; {counted(end.reused, 'part')} were there already" if end.reused else ""
    print(f"{out}: {counted(end.embedded)} embedded, {end.skipped:,} skipped{there}")
