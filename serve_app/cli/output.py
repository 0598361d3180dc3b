"""The output of commands on standard output: tables for people, JSON for programs."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from constellate.records import NeighbourInfo, SkipInfo

EXAMPLES = 3

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def console() -> Console:
    """A console on the present standard output; it is made at each use, because tests replace standard output."""
    return Console(highlight=False)


def aside() -> Console:
    """A console on the present standard error, for progress of commands whose output is an answer."""
    return Console(highlight=False, stderr=True)


def tell(notices: Iterable[str]) -> None:
    """Print what an answer does not show on standard error."""
    for notice in notices:
        aside().print(notice, markup=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print one JSON document in ASCII, which no terminal's encoding changes."""
    print(json.dumps(value, indent=2))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table on a terminal, and otherwise tab-separated lines under a header."""
    out = console()
    if not out.is_terminal:
        for row in (columns, *rows):
            print("\t".join(_cell(value) for value in row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row))
    out.print(table)


def print_neighbours(found: list[NeighbourInfo], *, as_json: bool) -> None:
    """Print samples with their scores, in the given order."""
    if as_json:
        print_json(found)
    else:
        print_table(["score", "label", "file"], ((n["score"], n["label"], n["file_name"]) for n in found))


def summarize_skips(skips: list[SkipInfo], console: Console, what: str = "image") -> None:
    """Print how many images or rows were skipped and why, with a few names for each reason."""
    if not skips:
        return
    console.print(f"Skipped {counted(len(skips), what)}:", highlight=False)
    for reason, count in Counter(skip["reason"] for skip in skips).most_common():
        of_reason = [skip for skip in skips if skip["reason"] == reason]
        names = ", ".join(skip["file_name"] for skip in of_reason[:EXAMPLES])
        more = " …" if count > EXAMPLES else ""
        console.print(f"  {count:>6}  {reason}: {names}{more}", markup=False, highlight=False, soft_wrap=True)


def counted(count: int, what: str = "image") -> str:
    """A number with its noun, such as `1 image` or `1,200 images`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _cell(value: object) -> str:
    """A value as text: None is empty, scores have four decimals, control characters are replaced."""
    if value is None:
        return ""
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
