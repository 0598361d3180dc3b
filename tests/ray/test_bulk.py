"""Sets too large for the database: Ray Data in, Parquet out, on a real cluster."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from deployments.bulk import Bulk
from serve_app.errors import InvalidRequest
from tests.ray.client import embed, export_table, finish
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.ray

REPOSITORY = Path(__file__).parents[2]


def vectors_of(table: pa.Table, key: str) -> dict[str, np.ndarray]:
    return dict(zip(table[key].to_pylist(), np.stack(table["vector"].to_numpy()), strict=True))


def read_parts(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(out.glob("part-*.parquet")))


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def album(service: Service) -> tuple[Path, str]:
    """A folder of 12 images, one of them cut off, and the id of the dataset that HTTP made of it."""
    root = make_folder(service.roots / "bulk", n_images=12)
    whole = (root / "dog" / "0001.jpg").read_bytes()
    (root / "dog" / "0001.jpg").write_bytes(whole[: len(whole) // 2])
    dataset_id, _ = embed(service.http, root)
    return root, dataset_id


def test_an_interrupted_run_goes_on_and_has_the_vectors_that_http_gives(
    service: Service, album: tuple[Path, str], tmp_path: Path
):
    root, dataset_id = album
    run = Bulk(str(root), tmp_path, part_images=6, actors=1)

    def interrupt(state: object) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        run.run(interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "part-00000.skipped.jsonl"]
    first = (tmp_path / "part-00000.parquet").stat()

    # The rest as a user would have it: another process, joined to the running cluster.
    environment = os.environ | {
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "CONSTELLATE_DATA_DIR": str(tmp_path / "nothing-here"),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "serve_app.cli", "bulk", root, "--out", tmp_path]
    command += ["--part-images", "6", "--actors", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("5 images embedded, 1 skipped; 1 part were there already")
    assert (tmp_path / "part-00000.parquet").stat().st_mtime_ns == first.st_mtime_ns

    rows = read_parts(tmp_path)
    assert rows.column_names == ["file_name", "vector"]
    found, expected = vectors_of(rows, "file_name"), vectors_of(export_table(service.http, dataset_id), "file_name")
    assert sorted(found) == sorted(expected)
    assert all(np.allclose(found[name], expected[name], rtol=1e-4, atol=1e-5) for name in expected)
    skipped = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert [(row["file_name"], row["refusal"].partition(":")[0]) for row in skipped] == [("dog/0001.jpg", "truncated")]


@pytest.mark.every
def test_a_part_whose_inputs_changed_is_made_anew_and_one_too_many_goes(
    service: Service, album: tuple[Path, str], tmp_path: Path
):
    root, _ = album
    short, out = tmp_path / "short", tmp_path / "out"
    for name in ("cat/0000.png", "cat/0002.png"):
        (short / name).parent.mkdir(parents=True, exist_ok=True)
        (short / name).symlink_to(root / name)
    assert Bulk(str(short), out, part_images=2, actors=1).run().embedded == 2
    shutil.copy(out / "part-00000.parquet", out / "part-00001.parquet")  # as a longer listing would have left it
    (short / "cat" / "0002.png").rename(short / "cat" / "0003.png")
    end = Bulk(str(short), out, part_images=2, actors=1).run()
    assert (end.parts, end.reused, end.embedded) == (1, 0, 2)
    assert read_parts(out)["file_name"].to_pylist() == ["cat/0000.png", "cat/0003.png"]


def test_a_table_of_images_keeps_its_other_columns_and_can_be_imported(
    service: Service, album: tuple[Path, str], tmp_path: Path
):
    root, dataset_id = album
    files = sorted(path for path in root.rglob("*.png"))[:5]
    images = [{"bytes": file.read_bytes(), "path": None} for file in files] + [None]
    names = [str(file.relative_to(root)) for file in files] + ["nothing"]
    source = tmp_path / "table.parquet"
    pq.write_table(pa.table({"file_name": names, "picture": images}), source)
    with pytest.raises(InvalidRequest, match="no column 'image'"):
        Bulk(str(source), tmp_path / "out", actors=1).run()
    end = Bulk(str(source), tmp_path / "out", column="picture", actors=1).run()
    assert (end.embedded, end.skipped) == (5, 1)
    part = tmp_path / "out" / "part-00000.parquet"
    assert pq.read_table(part).column_names == ["file_name", "vector"]

    answer = service.http.post(
        f"/datasets/{dataset_id}/embeddings/import",
        content=part.read_bytes(),
        headers={"Content-Type": "application/vnd.apache.parquet"},
    )
    assert answer.status_code == 202, answer.text
    end = finish(service.http, dataset_id)
    assert (end["status"], end["processed"]) == ("complete", 5)
    model = service.http.get("/v1/describe").json()
    status = service.http.get(f"/datasets/{dataset_id}/embeddings/status").json()
    assert (status["space_key"], status["embedding_count"]) == (model["space_key"], 5)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["an empty folder", "no folder"])
def test_a_source_without_images_is_refused(tmp_path: Path, make):
    make(tmp_path / "source")
    with pytest.raises(InvalidRequest, match=r"neither images nor Parquet files|cannot be listed"):
        Bulk(str(tmp_path / "source"), tmp_path / "out").run()
    assert not (tmp_path / "out").exists()
