"""What happens to the service and the job when the command ends early: real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from constellate import Constellate
from serve_app.cli import service as local
from serve_app.service_record import ServiceRecord
from tests.unit.store.workbench import lay_blank

DRIVER = (
    "import sys; from serve_app.cli import service, main\n"
    "service.COMMAND = [sys.executable, '-m', 'tests.live_service', *{options!r}]\n"
    "main()"
)
PATIENCE_S = 240


@pytest.fixture
def model(tmp_path):
    """A folder that passes for a checkpoint: the fake model never reads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    (folder / "model.safetensors").touch()
    return folder


@pytest.fixture
def start(settings, tmp_path, pytestconfig):
    """Start a command whose own service, should it need one, is the live service with `options`."""
    lay_blank(settings.database_path)
    processes = []

    def start_command(*arguments, options=()):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER.format(options=list(options)), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **settings.to_environment(), "PYTHONPATH": str(pytestconfig.rootpath)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        processes.append(process)
        return process

    yield start_command
    for process in processes:
        process.kill()
        process.communicate()


def read_until(process, text):
    """Lines up to the first that contains the text."""
    seen = []
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    for line in process.stdout:
        seen.append(line)
        if text in line:
            watchdog.cancel()
            return seen
    pytest.fail(f"{text!r} never came; there was:\n{''.join(seen)}")


def wait_until_dead(record):
    deadline = time.monotonic() + PATIENCE_S
    while record.is_alive():
        assert time.monotonic() < deadline, "the service outlived its parent"
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.every)], ids=lambda number: number.name
)
def test_a_signal_stops_the_service_that_embed_started(start, settings, flowers, model, number):
    process = start("embed", flowers, "--model", model, options=["--hold"])
    read_until(process, "Embedding: 0/5")
    record = ServiceRecord.read(settings.data_dir)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert not record.is_alive()


def test_after_ctrl_c_the_same_command_finishes_the_job_and_its_service_is_gone(
    start, settings, flowers, model, tmp_path
):
    process = start("embed", flowers, "--model", model, options=["--hold"])
    read_until(process, "Embedding: 0/5")
    record = ServiceRecord.read(settings.data_dir)
    process.send_signal(signal.SIGINT)
    out = read_until(process, "Stopping the service")
    process.send_signal(signal.SIGINT)  # an impatient second time changes nothing
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "the same command goes on from there" in "".join(out)
    assert not record.is_alive()

    process = start("embed", flowers, "--model", model)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    assert f"4 images embedded with {model}: {tmp_path}/flowers.parquet" in out
    assert out.index("Starting the service") < out.index("Stopping the service")
    assert "`constellate serve` shows it" in out
    assert ServiceRecord.read(settings.data_dir) is None
    assert (settings.data_dir / "serve.log").read_text().endswith("Stopped.\n")


def test_a_killed_command_takes_its_service_along(start, settings, flowers, model):
    process = start("embed", flowers, "--model", model, options=["--hold"])
    read_until(process, "Embedding: 0/5")
    record = ServiceRecord.read(settings.data_dir)
    process.kill()
    wait_until_dead(record)


def test_with_keep_the_service_stays_and_down_ends_it(start, settings, flowers, model):
    process = start("embed", flowers, "--model", model, "--keep")
    out, _ = process.communicate(timeout=PATIENCE_S)
    record = ServiceRecord.read(settings.data_dir)
    assert record is not None, out
    assert f"Map: see it at {settings.url}/" in out
    down = start("down")
    out, _ = down.communicate(timeout=PATIENCE_S)
    assert (down.returncode, out.splitlines()[-1]) == (0, "Stopped.")
    assert not record.is_alive()


def test_an_interrupt_leaves_a_service_that_was_there_before_at_its_work(start, live, flowers):
    live.hold()
    live.start()
    process = start("embed", flowers)
    read_until(process, "Embedding: 0/5")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert f"`constellate cancel {flowers}` stops the job" in out
    with Constellate(live.settings.url) as client:
        assert [job["status"] for job in client.jobs() if job["kind"] == "embed"] == ["running"]


def test_a_service_that_dies_while_starting_is_reported_with_its_last_words(run, flowers, model, settings, monkeypatch):
    words = "import sys; sys.exit('cannot listen on port 8000')"
    monkeypatch.setattr(local, "COMMAND", [sys.executable, "-c", words])
    shown = run("embed", flowers, "--model", model)
    assert shown.exit_code == 3
    assert "cannot listen on port 8000" in shown.stderr
    assert str(settings.data_dir / "serve.log") in shown.stderr
