"""`constellate embed` and `cancel` in this process, against the real application with a fake model."""

import json
import threading

import pyarrow.parquet as pq
import pytest

from constellate import Constellate
from serve_app import sources
from serve_app.cli import embed_command, embedding
from serve_app.errors import ModelUnavailable


@pytest.fixture
def embedded(service, run, flowers):
    assert run("embed", flowers).exit_code == 0
    return service


def test_embed_makes_vectors_a_map_and_a_file_and_says_what_was_left_out(run, service, flowers, tmp_path):
    shown = run("embed", flowers)
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("Listing: ")
    registered = lines.index("Registered 'flowers': 5 images")
    assert lines[registered - 1] == "Listing: 5/5 (100%)"
    assert lines[registered + 1].startswith("Embedding: ")
    assert "Embedding: 5/5 (100%), 1 skipped" in lines
    assert "       1  unidentified: tulip/broken.png" in lines
    assert lines[-2] == f"4 images embedded with dinov2-base: {tmp_path}/flowers.parquet"
    assert lines[-1] == f"Map: see it at {service.settings.url}/"
    rows = pq.read_table(tmp_path / "flowers.parquet")
    assert rows["file_name"].to_pylist() == ["rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png"]
    assert rows["x"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    assert "\x1b" not in shown.stdout


def test_embedding_a_folder_again_takes_up_what_changed(run, embedded, flowers):
    (flowers / "rose" / "a.png").unlink()
    shown = run("embed", flowers, "--out", "again.parquet")
    assert shown.exit_code == 0
    assert "Rescanned 'flowers': 1 removed" in shown.stdout
    assert "3 images embedded" in shown.stdout
    assert "Rescanned 'flowers': nothing changed" in run("embed", flowers).stdout


def test_a_map_is_drawn_anew_for_whoever_asks(run, embedded, flowers):
    with Constellate(embedded.settings.url) as client:
        for options, message in (((), "on the map"), (("--redraw",), "drawn anew")):
            assert run("embed", flowers, *options).exit_code == 0
            assert client.jobs()[0]["message"].endswith(message)


def test_a_second_name_makes_a_second_dataset(run, embedded, flowers, tmp_path):
    assert run("embed", flowers, "--name", "blossoms").exit_code == 0
    assert (tmp_path / "blossoms.parquet").is_file()
    assert [row["name"] for row in json.loads(run("status", "--json").stdout)["datasets"]] == ["flowers", "blossoms"]


def test_a_name_that_another_folder_has_is_wrong_usage(run, embedded, flowers, tmp_path):
    shown = run("embed", flowers / "rose", "--name", "flowers")
    assert shown.exit_code == 2
    assert "--name" in shown.stderr


def test_a_folder_outside_the_roots_of_a_running_service_is_wrong_usage(run, service, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shown = run("embed", tmp_path / "elsewhere")
    assert shown.exit_code == 2
    assert "CONSTELLATE_DATASET_ROOTS" in shown.stderr


def test_a_job_without_one_good_image_fails_with_1_and_says_why(run, service, flowers):
    for image in flowers.rglob("*.png"):
        image.write_bytes(b"not an image")
    shown = run("embed", flowers)
    assert shown.exit_code == 1
    assert "5  unidentified" in shown.stdout
    assert "no_valid_images" in shown.stderr


def test_a_model_that_is_not_available_exits_3_with_the_server_s_message(run, service, flowers):
    service.embedder.fault = ModelUnavailable("the weights of dinov2-base are not on this machine: do this or that")
    shown = run("embed", flowers)
    assert shown.exit_code == 3
    assert shown.stderr == "constellate: the weights of dinov2-base are not on this machine: do this or that\n"


def test_an_unknown_model_is_wrong_usage(run, service, flowers):
    shown = run("embed", flowers, "--model", "dinov2-bose")
    assert shown.exit_code == 2
    assert "did you mean dinov2-base" in shown.stderr


def test_without_a_service_a_missing_model_is_told_before_one_is_started(run, flowers, settings):
    shown = run("embed", flowers, "--model", "dinov2-giant")
    assert shown.exit_code == 3
    assert "hf download facebook/dinov2-giant" in shown.stderr
    assert not (settings.data_dir / "serve.log").exists()


def test_embed_waits_for_a_job_that_is_already_running(run, embedded, flowers):
    with Constellate(embedded.settings.url) as client:
        client.generate(client.datasets()[0]["id"], force=True)
    shown = run("embed", flowers)
    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[-1].startswith("Map: ")


def test_cancel_ends_the_running_job_and_is_content_when_none_runs(run, live, flowers):
    live.hold()
    live.start()
    with Constellate(live.settings.url) as client:
        dataset_id = client.register("flowers", flowers)["id"]
        job_id = client.generate(dataset_id)
        assert run("cancel", flowers).stdout == "Cancelled the job of 'flowers'.\n"
        assert client.job(job_id)["status"] == "cancelled"
    shown = run("cancel", dataset_id)
    assert (shown.exit_code, shown.stdout) == (0, "No job of 'flowers' is running.\n")


def test_ctrl_c_while_files_are_listed_names_the_job_which_cancel_takes(run, service, flowers, monkeypatch):
    gate = threading.Event()
    scan = sources.scan
    monkeypatch.setattr(sources, "scan", lambda *args, **kwargs: gate.wait(60) and scan(*args, **kwargs))

    def interrupted(states, console, title):
        assert next(iter(states)).status == "running"
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding, "watch", interrupted)
    shown = run("embed", flowers)
    with Constellate(service.settings.url) as client:
        job_id = client.jobs()[0]["id"]
        assert (shown.exit_code, f"`constellate cancel {job_id}` stops the job" in shown.stdout) == (130, True)
        assert run("cancel", job_id).stdout == f"Cancelled job {job_id}.\n"
        assert client.job(job_id)["status"] == "cancelled"
    gate.set()
    assert (run("cancel", job_id).exit_code, run("cancel", job_id).stdout) == (0, f"Job {job_id} is over.\n")


def test_after_ctrl_c_only_embedded_images_are_said_to_be_kept():
    assert "lists them again" in embed_command._goes_on("job")
    assert "goes on from there" in embed_command._goes_on(None)


def test_a_job_that_somebody_cancels_ends_embed_with_1(run, live, flowers, monkeypatch):
    live.hold()
    live.start()
    cancelled = []

    def cancel_once(self, state):
        if not cancelled and self._title == "Embedding":
            cancelled.append(run("cancel", "flowers").exit_code)

    monkeypatch.setattr("serve_app.cli.progress.Lines.show", cancel_once)
    shown = run("embed", flowers)
    assert (shown.exit_code, cancelled) == (1, [0])
    assert "cancelled" in shown.stderr


def test_a_question_before_any_vectors_is_wrong_usage(run, service, flowers):
    with Constellate(service.settings.url) as client:
        client.register("flowers", flowers)
    shown = run("outliers", "flowers")
    assert shown.exit_code == 2
    assert "No embeddings found" in shown.stderr


def test_a_command_makes_the_graph_that_a_large_dataset_needs_and_shows_it(live, run, flowers):
    live.max_pairwise_rows = 3
    live.start()
    assert run("embed", flowers).exit_code == 0
    shown = run("outliers", "flowers", "-k", 2, "--limit", 3)
    assert shown.exit_code == 0
    assert "Comparing: 4/4 (100%)" in shown.stderr
    assert len(shown.stdout.splitlines()) == 1 + 3
    again = run("duplicates", "flowers", "--json")
    assert (json.loads(again.stdout), "Comparing" in again.stderr) == ([], False)
