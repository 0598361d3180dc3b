"""Commands on what is known of a dataset's images: its columns, its tags, and labels that words give."""

from pathlib import Path
from typing import Annotated

import typer

from constellate import Constellate
from constellate.records import ColumnInfo
from serve_app.cli.commands import ADDRESS, UsageError, add_command
from serve_app.cli.dataset_commands import DatasetName, Model, Where, find_dataset
from serve_app.cli.output import Json, console, counted, print_json, print_table, tell
from serve_app.cli.service import connect
from serve_app.config import Settings

SHOWN_VALUES = 3
PROMPTS = ["a photo of {}."]
"""The sentence for phrases that bring their article."""

LabelColumn = Annotated[str, typer.Option(help="The column of phrases; that of scores has the ending _score.")]
TagName = Annotated[str, typer.Argument(metavar="TAG", help="A word of your choice.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for run in (columns, labels, tag, untag, tags):
        add_command(app, run, *ADDRESS)


def columns(
    settings: Settings,
    dataset: DatasetName,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="CSV, Parquet or Arrow with `sample_id` or `file_name`.")
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List the columns that a filter may name, or add those of a file.

    Columns that have the names of the file's are replaced. The command lists rows that name no image of the dataset.

    For example:

        constellate columns photos
        constellate columns photos sizes.csv
    """
    if file is not None and not file.is_file():
        raise UsageError(f"no such file: {file}")
    with connect(settings) as client:
        found = find_dataset(client, dataset)["id"]
        if file is not None:
            _put(client, found, file, as_json=json)
            return
        listed = client.columns(found)
    if json:
        print_json(listed)
        return
    rows = ((column["name"], column["type"], column["count"], column["distinct"], _shown(column)) for column in listed)
    print_table(["column", "type", "images", "distinct", "values"], rows)


def labels(
    settings: Settings,
    dataset: DatasetName,
    phrases: Annotated[list[str], typer.Argument(metavar="PHRASE PHRASE…", help="What an image may show: `a cat`.")],
    *,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SENTENCE",
            help="Has {} where a phrase goes; give several to average over them.",
            show_default=PROMPTS[0],
        ),
    ] = None,
    column: LabelColumn = "zero_shot",
    where: Where = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Give each image the phrase that fits it best, and how well, as two columns.

    The score is the cosine of the image's vector and the phrase's, so it compares phrases and says little by itself.
    Columns of the same names are replaced. The model must take text, such as siglip2-base.

    For example:

        constellate labels photos "a cat" "a dog"
        constellate labels photos cat dog --prompt "a photo of a {}." --prompt "a drawing of a {}." --column animal
        constellate export photos --where "zero_shot = 'a cat' AND zero_shot_score > 0.1" --format list
    """
    with connect(settings) as client:
        found = find_dataset(client, dataset)["id"]
        counts = client.label(found, phrases, templates=prompt or PROMPTS, column=column, **_choice(where, model))
    tell(counts.notices)
    if json:
        print_json(counts)
        return
    print_table([column, "images"], counts.items())


def tag(settings: Settings, dataset: DatasetName, tag: TagName, *, where: Where = None, model: Model = None) -> None:
    """Put a tag on the images that a filter chooses.

    A tag stays through rescans and new vectors; `tag = 'keep'` is a filter itself. A region of a filter,
    `inside(…)`, lies on the map of --model.

    For example:

        constellate tag photos keep --where "label = 'cat'"
    """
    if where is None:
        raise UsageError("""say which images: --where "label = 'cat'" (see `constellate columns`)""")
    with connect(settings) as client:
        changed = client.tag(find_dataset(client, dataset)["id"], tag, **_choice(where, model))
    print(f"Put {tag!r} on {counted(changed)}.")


def untag(settings: Settings, dataset: DatasetName, tag: TagName, *, where: Where = None, model: Model = None) -> None:
    """Take a tag off the images that a filter chooses, or off all of them if there is no filter.

    Neither the images nor their vectors change.

    For example:

        constellate untag photos keep --where "width < 200"
        constellate untag photos keep
    """
    with connect(settings) as client:
        changed = client.untag(find_dataset(client, dataset)["id"], tag, **_choice(where, model))
    print(f"Took {tag!r} off {counted(changed)}.")


def tags(settings: Settings, dataset: DatasetName, *, json: Json = False) -> None:
    """List the tags of a dataset, with the number of images that have each.

    For example:

        constellate tags photos
    """
    with connect(settings) as client:
        found = client.tags(find_dataset(client, dataset)["id"])
    if json:
        print_json(found)
    else:
        print_table(["tag", "images"], found.items())


def _choice(where: str | None, model: str | None) -> dict[str, str]:
    """What of this is given, as methods of `Constellate` take it."""
    return {name: value for name, value in (("where", where), ("model", model)) if value is not None}


def _put(client: Constellate, dataset_id: str, file: Path, *, as_json: bool) -> None:
    change = client.put_columns(dataset_id, file)
    if as_json:
        print_json(change)
        return
    print(f"Put {', '.join(change['columns'])} on {counted(change['matched'])} of {counted(change['rows'], 'row')}.")
    for refused in change["refused"]:
        line = f"  {refused['count']:>6}  {refused['reason']}: {', '.join(refused['examples'])}"
        console().print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(column: ColumnInfo) -> str:
    """The range of numbers and times, and otherwise the most frequent values."""
    if column["min"] is not None:
        return f"{column['min']} to {column['max']}"
    values = [str(value["value"]) for value in column["values"]]
    return ", ".join(values[:SHOWN_VALUES]) + (", …" if column["distinct"] > SHOWN_VALUES and values else "")
