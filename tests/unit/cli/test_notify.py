"""`--notify` tells a URL when the jobs of a command end."""

import base64

import pytest

from constellate import Constellate
from serve_app.cli import embed_command
from tests.unit.cli.conftest import settings_below

HOOK = "https://hooks.example.org/constellate?a=1"


@pytest.fixture
def settings(tmp_path):
    below = settings_below(tmp_path)
    roots = (*below.dataset_roots, "https://hooks.example.org/constellate")
    return below.model_copy(update={"dataset_roots": roots, "notify_key": base64.b64encode(bytes(32)).decode()})


def jobs(service):
    with Constellate(service.settings.url) as client:
        return [(job["kind"], job.get("notified")) for job in reversed(client.jobs())]


def test_every_job_of_embed_and_the_one_of_import_has_the_webhook(run, service, flowers):
    assert run("embed", flowers).exit_code == 0
    assert {notified for _, notified in jobs(service)} == {None}
    assert run("embed", flowers, "--notify", HOOK).exit_code == 0
    assert jobs(service)[3:] == [("rescan", "pending"), ("embed", "pending"), ("reduce", "pending")]
    assert run("import", "flowers", "flowers.parquet", "--notify", HOOK).exit_code == 0
    assert jobs(service)[6:] == [("import", "pending")]


def test_a_url_outside_the_roots_is_wrong_usage_and_starts_nothing(run, service, flowers):
    refused = run("embed", flowers, "--notify", "https://elsewhere.org/")
    assert (refused.exit_code, "DATASET_ROOTS" in refused.stderr, jobs(service)) == (2, True, [])


class Settling:
    """A client whose job is told of after some looks."""

    def __init__(self, pending):
        self.left = pending

    def job(self, job_id):
        self.left -= 1
        return {"notified": "pending" if self.left >= 0 else "delivered"}


def test_a_service_that_ends_with_the_command_gets_the_time_of_a_try(monkeypatch, capsys):
    monkeypatch.setattr(embed_command, "POLL_S", 0.0)
    client = Settling(3)
    embed_command._await_notice(client, "j")
    assert (client.left, capsys.readouterr().out) == (-1, "")
    monkeypatch.setattr(embed_command, "NOTICE_S", -1.0)
    embed_command._await_notice(Settling(3), "j")
    assert "the next service of this data directory tries again" in capsys.readouterr().out
