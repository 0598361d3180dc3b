"""The deployments' classes without Ray: a handle calls the object that a replica would hold."""

import pytest

from serve_app import logs
from serve_app.config import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "state", dataset_roots=(tmp_path,))


@pytest.fixture(autouse=True)
def _no_log_lines(monkeypatch):
    """A replica decides where its process logs to; in a test it shares the process with every other test."""
    monkeypatch.setattr(logs, "to_stderr", lambda component: None)
