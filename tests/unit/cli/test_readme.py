"""The README's commands with filters, pasted into a shell beside a running service."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from constellate import Constellate

README = Path(__file__).parents[3] / "README.md"
ROOT = str(README.parent)


@pytest.fixture
def shell(service, flowers, tmp_path, monkeypatch):
    """Run a block of commands on the dataset `photographs`, in which the folder of roses is called `cat`."""
    (flowers / "rose").rename(flowers / "cat")
    with Constellate(service.settings.url) as client:
        dataset = client.embed_folder(flowers, name="photographs").id
    command = tmp_path / "bin" / "constellate"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m serve_app.cli "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, **service.settings.to_environment(), "PYTHONPATH": ROOT, "ID": dataset}
    environment["PATH"] = f"{command.parent}:{environment['PATH']}"

    def run(block):
        block = block.replace("localhost:8000", service.settings.url)
        return subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands use curl")
def test_the_readmes_filters_work_as_pasted(shell, tmp_path):
    [block] = [text for text in re.findall(r"```bash\n(.*?)```", README.read_text(), re.S) if "--where" in text]
    shown = shell(block)
    assert shown.returncode == 0, shown.stderr
    assert "Put 'keep' on 2 images." in shown.stdout
    assert pq.read_table(tmp_path / "keep.parquet").column("tag").to_pylist() == [["keep"], ["keep"]]
    assert '"items":[{' in shown.stdout
