"""Prints what a fault test measured, and keeps it where `FAULTS_REPORT` says."""

import json
import os
from pathlib import Path


def measured(what: str, **figures: object) -> None:
    """Show the figures of one fault (`pytest -rP`), and append them as a line of JSON to `$FAULTS_REPORT`."""
    rounded = {name: round(value, 2) if isinstance(value, float) else value for name, value in figures.items()}
    print(f"{what}: " + ", ".join(f"{name} {value}" for name, value in rounded.items()))
    if path := os.environ.get("FAULTS_REPORT"):
        with Path(path).open("a") as report:
            report.write(json.dumps({"fault": what} | rounded) + "\n")
