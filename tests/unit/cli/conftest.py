"""A folder of images, a live service for it, and the command line in this process."""

import io

import pytest
from PIL import Image
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.config import Settings
from tests.live_service import LiveService
from tests.ports import free_port
from tests.unit.store.workbench import lay_blank


def make_flowers(folder):
    """Write five files in two classes, one of them no image."""
    for i, name in enumerate(("rose/a.png", "rose/b.png", "tulip/c.png", "tulip/d e+é.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.new("RGB", (32, 24), (40 * i, 10, 10)).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
    (folder / "tulip" / "broken.png").write_bytes(b"not an image")
    return folder


def settings_below(folder):
    """Settings with all their files in a folder, and a port that is free."""
    return Settings(port=free_port(), data_dir=folder / "state", dataset_roots=(folder / "images",))


def command_line(settings, folder, monkeypatch):
    """A function that runs commands in a folder with these settings in the environment."""
    for name, text in settings.to_environment().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(folder)

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return run


@pytest.fixture
def flowers(tmp_path):
    return make_flowers(tmp_path / "images" / "flowers")


@pytest.fixture
def settings(tmp_path):
    return settings_below(tmp_path)


@pytest.fixture
def live(settings):
    """A service that the test starts; stopped at the end."""
    lay_blank(settings.database_path)
    service = LiveService(settings)
    yield service
    service.stop()


@pytest.fixture
def service(live):
    """A service that runs."""
    live.start()
    return live


@pytest.fixture
def run(settings, tmp_path, monkeypatch):
    """Run a command in this process: `run("status")` has `exit_code`, `stdout` and `stderr`."""
    return command_line(settings, tmp_path, monkeypatch)
