from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import contenders, gpu, million
from benchmarks.__main__ import parts
from benchmarks.autoscaling import plot
from benchmarks.checkpoints import ARCHITECTURES, FAMILIES
from benchmarks.rows import ROWS, Row
from serve_app.embedding import families
from serve_app.images.decode import Preprocessing
from serve_app.jobs.vector_file import VectorFile
from tests.tiny_models import make_tiny_family

SMALL = Preprocessing(resize_px=16, crop_px=14)


def jpeg(level):
    file = BytesIO()
    Image.new("RGB", (20, 20), (level,) * 3).save(file, "JPEG")
    return file.getvalue()


def test_the_gpu_script_refuses_a_machine_without_one(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["gpu", "--images", str(tmp_path)])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="not measured: this machine has no CUDA GPU"):
        gpu.main()


def test_images_decoded_ahead_come_in_order_and_complete():
    levels = [0, 40, 80, 120, 160, 200, 240]
    with ThreadPoolExecutor(2) as pool:
        stacks = list(gpu.decoded_ahead(pool, [jpeg(level) for level in levels], 2, SMALL))
    assert [len(stack) for stack in stacks] == [2, 2, 2, 1]
    assert np.abs(np.concatenate(stacks)[:, 0, 0, 0].astype(int) - levels).max() <= 2


def test_the_gpu_ratios_are_over_the_best_forward_and_the_slower_limit():
    ratios = gpu.summary({32: 80.0, 64: 100.0}, {"plain": 70.0, "pinned": 95.0}, {"1": 10.0, "8": 50.0}, 45.0)
    assert ratios == {"over_forward": 0.95, "over_slower": 0.9}


@pytest.mark.parametrize(
    ("results", "mark"),
    [
        ({"writer": {"median": {"rate": 9000}}}, "✓"),
        ({"writer": {"median": {"rate": 7999}}}, "✗"),
        ({"writer": {"median": {}}}, "not measured: not in this run"),
        ({"writer": "it ended with status 1"}, "not measured: it ended with status 1"),
        ({"writer": {"median": "no bf16 here"}}, "not measured: no bf16 here"),
        ({}, "not measured: not in this run"),
    ],
)
def test_a_row_is_reached_or_not_or_says_why_it_was_not_measured(results, mark):
    assert Row("writer", "writer", ("median", "rate"), "≥", 8000).verdict(results)[2] == mark


def test_a_large_set_has_a_vector_for_each_listed_file(tmp_path):
    manifest, vectors = million.write_set(tmp_path, "set", 120, 8)
    listed, sent = pq.read_table(manifest), VectorFile(vectors.open("rb"))
    assert (sent.total, sent.dimension) == (120, 8)
    keys = [key for block in sent.blocks() for key in block.keys]
    assert keys == listed.column("file_name").to_pylist()


def test_every_row_has_a_name_of_its_own():
    assert len({row.what for row in ROWS}) == len(ROWS)


def test_the_plot_of_a_load_step_shows_its_three_curves():
    rows = [
        {"t_s": t, "replicas": 1 + (t > 3), "processed": min(100, 10 * t), "in_flight": 5, "status": "running"}
        for t in range(12)
    ]
    svg = plot(rows)
    assert svg.startswith("<svg")
    assert svg.count("<polyline") == 3
    assert "nan" not in svg


@pytest.mark.parametrize("family", ["siglip", "clip", "dinov3"])
def test_a_users_loop_embeds_with_a_checkpoint_of_any_family(tmp_path, family):
    (tmp_path / "images").mkdir()
    for level in (10, 200):
        (tmp_path / "images" / f"{level}.jpg").write_bytes(jpeg(level))
    assert contenders.loop(make_tiny_family(tmp_path / family, family), tmp_path / "images")["images"] == 2


def test_every_family_with_models_of_its_own_has_a_row(tmp_path):
    """A row of a part that does not run would be `not measured` for ever."""
    measured = {families.of_known(model).name for model in (*ARCHITECTURES, *FAMILIES)}
    assert measured == {family.name for family in families.FAMILIES}
    ran = set(parts(full=True, images=tmp_path)) | {"gpu"}
    assert {row.part for row in ROWS} <= ran
