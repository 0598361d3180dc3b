"""One run of schemathesis against a seeded service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.service import API_KEY

REPOSITORY = Path(__file__).parents[2]


class Outcome(NamedTuple):
    """What a run found."""

    is_clean: bool
    report: str
    n_cases: int


def config(seeds):
    """schemathesis' settings: ids that exist most of the time, and one event of a stream is enough."""
    values = {
        "path.dataset_id": ("datasets", 0.7),
        "path.sample_id": ("samples", 0.7),
        "path.job_id": ("jobs", 0.5),
        "body.root": ("folders", 0.5),
    }
    lines = ["max-stream-events = 1", "request-timeout = 240", 'suppress-health-check = ["filter_too_much"]']
    for name in ("datasets", "samples", "jobs", "folders"):
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(getattr(seeds, name))}"]
    lines += ["[parameters]"]
    lines += [
        f'"{parameter}" = {{ dictionary = "{name}", probability = {probability} }}'
        for parameter, (name, probability) in values.items()
    ]
    return "\n".join(lines)


def fuzz(service, seeds, folder, *, max_examples, seed, timeout_s, phases="examples,coverage,fuzzing,stateful"):
    """Run every check over every operation; `folder` is for its files."""
    (folder / "schemathesis.toml").write_text(config(seeds))
    (folder / "seeds.json").write_text(json.dumps(seeds._asdict()))
    command = [
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", "schemathesis.toml", "run", f"{service.settings.url}/openapi.json"),
        *("--checks", "all", "--phases", phases, "--max-examples", str(max_examples), "--seed", str(seed)),
        *("--header", f"Authorization: Bearer {API_KEY}", "--continue-on-failure", "--no-color", "--no-shrink"),
        *("--generation-database", "none", "--warnings", "off"),
    ]
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
        "FUZZ_SEEDS": str(folder / "seeds.json"),
    }
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout_s)
    generated = re.search(r"([\d,]+) generated", ran.stdout)
    n_cases = int(generated[1].replace(",", "")) if generated else 0
    return Outcome(ran.returncode == 0, ran.stdout + ran.stderr, n_cases)
