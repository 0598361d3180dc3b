"""`make demo` as its user meets it: one command, a Parquet file, nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.checkpoints import tiny_checkpoint
from tests.ray.photographs import make_folder

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def descendants_with(text: str) -> list[str]:
    """Command lines of live processes whose environment or command holds the text, this one left out."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if text.encode() in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def test_the_demo_embeds_a_folder_and_leaves_only_its_files(tmp_path: Path):
    images = make_folder(tmp_path / "animals", n_images=24)
    checkpoint = tiny_checkpoint(tmp_path / "tiny-dinov2")
    mark = f"demo-test-{os.getpid()}"
    environment = os.environ | {"CONSTELLATE_MODEL": str(checkpoint), "HF_HUB_OFFLINE": "1", "DEMO_MARK": mark}
    run = subprocess.run(
        [sys.executable, "-m", "demo", "--images", str(images), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "24 images in" in run.stdout
    assert "nearest neighbours" in run.stdout

    table = pq.read_table(tmp_path / "out" / "demo.parquet")
    assert table.num_rows == 24
    assert {len(vector) for vector in table["vector"].to_pylist()} == {768}
    assert None not in table["x"].to_pylist()

    assert descendants_with(mark) == []
    with duckdb.connect(str(tmp_path / "out" / "demo" / "constellate.duckdb"), read_only=True) as database:
        columns = dict(row[:2] for row in database.execute("DESCRIBE embeddings").fetchall())
        assert columns["vector"] == "FLOAT[768]"
        assert database.execute("SELECT count(*), count(x) FROM embeddings").fetchall() == [(24, 24)]
    assert not (tmp_path / "out" / "demo" / "constellate.duckdb.wal").exists()
