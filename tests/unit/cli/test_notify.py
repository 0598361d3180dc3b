"""`--notify` tells a URL when the jobs of a command end."""

import base64

import pytest

from constellate import Constellate, NothingThere
from serve_app.cli import embed_command
from serve_app.errors import ModelUnavailable
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


class Temporary(Constellate):
    """The running service, as one that ends with the command; the URL hears of each job after some looks."""

    LOOKS = 3

    def __init__(self, settings, console, *, keep):
        super().__init__(settings.url)
        self.looks = {}

    def jobs(self, **options):
        found = super().jobs(**options)
        for job in found:
            self.looks[job["id"]] = self.looks.get(job["id"], 0) + 1
            if job["kind"] == "reduce" or self.looks[job["id"]] > self.LOOKS:
                job["notified"] = "delivered"
        return found


class NeverTold(Temporary):
    """The URL is never reached for jobs but the last one."""

    LOOKS = 10**9


@pytest.fixture
def ending(monkeypatch):
    """A function that lets `embed` end its service, of the class, when it ends."""

    def with_service(kind, notice_s):
        def connect(settings):
            raise NothingThere("no service")

        made = []
        monkeypatch.setattr(embed_command, "connect", connect)
        monkeypatch.setattr(embed_command, "_settings_for", lambda settings, *_: settings)
        monkeypatch.setattr(embed_command, "POLL_S", 0.0)
        monkeypatch.setattr(embed_command, "NOTICE_S", notice_s)

        class Kept(kind):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                made.append(self)

        monkeypatch.setattr(embed_command, "LocalService", Kept)
        return made

    return with_service


LATER = "the next service of this data directory tries again"


def test_a_service_that_ends_with_the_command_gets_the_time_of_a_try_for_every_job(run, service, flowers, ending):
    made = ending(Temporary, 60.0)
    done = run("embed", flowers, "--notify", HOOK)
    assert (done.exit_code, LATER in done.stdout) == (0, False)
    assert sorted(made[0].looks.values()) == [4, 4, 4]


def test_an_earlier_job_that_is_not_told_of_is_said_at_the_end(run, service, flowers, ending):
    ending(NeverTold, -1.0)
    done = run("embed", flowers, "--notify", HOOK)
    assert (done.exit_code, LATER in done.stdout) == (0, True)
    assert LATER not in run("embed", flowers).stdout


def test_a_job_that_fails_is_told_of_before_its_service_ends(run, service, flowers, ending):
    async def broken(*_):
        raise ModelUnavailable("its weights are gone")

    service.embedder.embed_files = broken
    made = ending(Temporary, 60.0)
    failed = run("embed", flowers, "--notify", HOOK)
    assert (failed.exit_code, jobs(service)[-1][0]) == (3, "embed")
    assert sorted(made[0].looks.values()) == [4, 4]
