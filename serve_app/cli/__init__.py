"""The `constellate` command.

Importing this package loads neither Ray nor torch, so `--help` answers at once. Commands that need Ray import
`serve_app.main` when they run.
"""

import io
import os
import sys

import typer

from serve_app.cli import (
    bulk_command,
    column_commands,
    dataset_commands,
    embed_command,
    finding_commands,
    service_commands,
    set_commands,
)

app = typer.Typer(
    name="constellate",
    help="""Image embeddings as a service: folders of images become DINOv2 vectors, a 2D map and similarity search.

    `constellate embed PATH` does all of it for one folder. `constellate serve` runs the service for many.

    Every flag of a setting has a variable of the same name: `--data-dir` is CONSTELLATE_DATA_DIR.

    Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 service or model not available, 130 interrupted.
    """,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
service_commands.add_to(app)
embed_command.add_to(app)
dataset_commands.add_to(app)
set_commands.add_to(app)
finding_commands.add_to(app)
column_commands.add_to(app)
bulk_command.add_to(app)


def main() -> None:
    """Run the command line; characters that the terminal's encoding lacks are replaced."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # A thread of Serve that outlives `ray.shutdown` would start another cluster. Ray reads this at its import.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    app()
