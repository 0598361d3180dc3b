import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from demo import command, offline_weights
from serve_app.cli import service as local
from serve_app.cli.commands import add_command
from serve_app.cli.output import console
from serve_app.embedding import weights
from serve_app.errors import ModelUnavailable
from serve_app.service_record import ServiceRecord


@pytest.fixture
def run_demo(run, monkeypatch, pytestconfig):
    """Run the demo on the live service's program, with a stand-in for the checkpoint that it would load."""
    monkeypatch.setattr(local, "COMMAND", [sys.executable, "-m", "tests.live_service"])
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))
    app = typer.Typer()
    add_command(app, command.demo, "host", "model", "device", "precision")

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


def test_the_demo_embeds_a_folder_shows_neighbours_writes_a_file_and_stops(run_demo, flowers, tmp_path):
    shown = run_demo("--images", flowers, "--out", tmp_path / "out", "--model", "dinov2-base")
    assert shown.exit_code == 0, shown.output
    rows = pq.read_table(tmp_path / "out" / "demo.parquet")
    assert rows["label"].to_pylist() == ["rose", "rose", "tulip", "tulip"]
    assert all(name in shown.stdout for name in rows["file_name"].to_pylist())
    assert "of the 5 nearest neighbours have the image's label (33% by chance)" in shown.stdout
    assert "images/s from request to last vector" in shown.stdout
    data_dir = tmp_path / "out" / "demo"
    assert shown.stdout.splitlines()[-2:] == [
        f"Vectors and map: {tmp_path}/out/demo.parquet",
        f"To look at the map: constellate serve --data-dir {data_dir} --model dinov2-base",
    ]
    assert ServiceRecord.read(tmp_path / "out" / "demo") is None
    assert (tmp_path / "out" / "demo" / "serve.log").read_text().endswith("Stopped.\n")


def test_a_folder_that_is_not_there_is_wrong_usage(run_demo, tmp_path):
    shown = run_demo("--images", tmp_path / "nowhere")
    assert shown.exit_code == 2
    assert "no such folder" in shown.stderr


def test_dinov2_small_is_used_where_it_can_be_had(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "locate", lambda name: tmp_path)
    assert command.choose_model(tmp_path, console()) == "dinov2-small"


def test_without_it_the_packaged_backbone_is_used_and_said_so(tmp_path, monkeypatch, capsys):
    def locate(name):
        raise ModelUnavailable("the weights of dinov2-small are not on this machine")

    monkeypatch.setattr(weights, "locate", locate)
    monkeypatch.setattr(offline_weights, "prepare", lambda folder: folder / "dinov2-small-saliency")
    assert command.choose_model(tmp_path, console()) == str(tmp_path / "dinov2-small-saliency")
    shown = capsys.readouterr().out
    assert shown.startswith("the weights of dinov2-small are not on this machine\n")
    assert "not DINOv2's quality" in shown


def test_agreement_is_the_share_of_neighbours_with_the_same_label(monkeypatch):
    monkeypatch.setattr(command, "NEIGHBOURS", 1)
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, 0]], np.float32)
    share, chance = command.label_agreement(vectors, ["a", "a", "b", "b", "b"])
    # The last one is nearest to the third: same label; by chance 1 of 4 for an a, 2 of 4 for a b.
    assert (share, chance) == (1.0, pytest.approx((2 * 0.25 + 3 * 0.5) / 5))


def test_an_image_without_a_label_asks_no_question_but_counts_as_a_neighbour(monkeypatch):
    monkeypatch.setattr(command, "NEIGHBOURS", 1)
    vectors = np.array([[1, 0], [1, 0.01], [1, 0.5]], np.float32)
    assert command.label_agreement(vectors, ["a", None, "a"]) == (0.0, 0.5)


@given(n_images=st.integers(2, 40), n_labels=st.integers(1, 5), max_queries=st.integers(1, 50), seed=st.integers(0, 99))
def test_agreement_and_chance_are_shares(n_images, n_labels, max_queries, seed):
    rng = np.random.default_rng(seed)
    labels = [str(label) for label in rng.integers(n_labels, size=n_images)]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(command, "MAX_QUERIES", max_queries)
        share, chance = command.label_agreement(rng.normal(size=(n_images, 4)).astype(np.float32), labels)
    assert 0 <= chance <= 1
    assert share == 1 if n_labels == 1 else 0 <= share <= 1


def test_a_free_port_can_be_listened_on():
    assert 1024 <= command.free_port("127.0.0.1") <= 65535
