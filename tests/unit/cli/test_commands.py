"""What all commands have in common: help, settings as flags, exit codes, finding the service."""

import functools
import json
import re
import shlex
import subprocess
import sys
import types

import pytest

from constellate import NothingThere, Refused, Unreachable
from serve_app.cli import app
from serve_app.cli.commands import JobFailed, UsageError, exit_code
from serve_app.config import Settings, SettingsError
from serve_app.errors import ModelUnavailable, ServiceError, Unavailable, UnknownModel
from serve_app.service_record import ServiceRecord
from tests.live_service import LiveService

COMMANDS = [command.name for command in app.registered_commands]


def test_the_contract_s_commands_are_there():
    assert {"serve", "embed", "status", "jobs", "cancel", "search", "export", "down"} <= set(COMMANDS)
    assert {"duplicates", "outliers", "diverse"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run, name):
    shown = run(name, "--help")
    assert shown.exit_code == 0
    assert "Usage:" in shown.stdout
    assert re.search(r"^ +[A-Z][^.]+\.", shown.stdout, re.M), "a sentence says what the command does"
    assert re.search(rf"^ +(RAY_ADDRESS=\S+ )?constellate {name}\b", shown.stdout, re.M), "there is an example"
    assert "Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 service or model not available" in shown.stdout
    assert "Environment: every flag under Settings" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_line_that_is_understood(run, name, monkeypatch):
    """Arguments are parsed and the command itself is not run: nothing is there to run it on."""
    examples = re.findall(rf"^ +(?:\S+=\S+ )?constellate ({name}\b.*?) *$", run(name, "--help").stdout, re.M)
    [command] = [command for command in app.registered_commands if command.name == name]
    seen = []
    callback = command.callback
    monkeypatch.setattr(command, "callback", functools.wraps(callback)(lambda **values: seen.append(values)))
    for example in examples:
        assert run(*shlex.split(example)).exit_code == 0, example
    assert len(seen) == len(examples) > 0


@pytest.mark.parametrize("name", ["serve", "embed"])
def test_every_setting_is_a_flag_and_names_its_variable(run, name):
    shown = run(name, "--help").stdout
    for setting in Settings.model_fields:
        assert f"--{setting.replace('_', '-')} " in shown
        assert (setting == "model" and name == "embed") or f"CONSTELLATE_{setting.upper()}" in shown


def test_help_loads_neither_ray_nor_torch():
    code = (
        "import sys; from serve_app.cli import app\n"
        "try: app(['embed', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'ray', 'torch', 'numpy', 'pyarrow', 'fastapi', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "no-such-folder"], "no such folder: no-such-folder"),
        (["status", "--port", "0"], "port"),
        (["status", "--port", "many"], "port"),
        (["embed", ".", "--device", "tpu"], "device"),
        (["embed", ".", "--out", "nowhere/x.parquet"], "no such folder"),
        (["embed", ".", "--out", "."], "is a folder"),
        (["no-such-command"], "No such command"),
        (["embed"], "Missing argument"),
        (["search", "flowers", "no-such-image.png"], "no such file"),
        (["export", "flowers", "--format", "xlsx"], "xlsx"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(run, arguments, message):
    shown = run(*arguments)
    assert shown.exit_code == 2
    assert message in shown.stderr


def test_an_unknown_variable_exits_2_and_suggests_the_right_one(run, monkeypatch):
    monkeypatch.setenv("CONSTELLATE_PROT", "8000")
    shown = run("status")
    assert shown.exit_code == 2
    assert "CONSTELLATE_PROT" in shown.stderr
    assert "CONSTELLATE_PORT" in shown.stderr


def test_a_flag_wins_over_its_variable(run, service, monkeypatch):
    monkeypatch.setenv("CONSTELLATE_PORT", "1")
    assert run("status", "--port", service.settings.port).exit_code == 0


def test_without_a_service_commands_exit_3_and_name_the_way_out(run):
    shown = run("jobs")
    assert shown.exit_code == 3
    assert "constellate serve" in shown.stderr


def test_the_service_of_the_data_directory_is_found_whatever_its_port(run, service, monkeypatch):
    ServiceRecord.of_this_process(url=service.settings.url, ray_address="").write(service.settings.data_dir)
    monkeypatch.setenv("CONSTELLATE_PORT", "1")
    assert run("status").stdout.startswith(service.settings.url)


def test_status_of_a_service_that_is_not_ready_exits_3_with_the_reason(run, service):
    service.embedder.fault = ModelUnavailable("no weights")
    shown = run("status")
    assert shown.exit_code == 3
    assert "no weights" in shown.stdout
    assert json.loads(run("status", "--json").stdout)["ready"] is False


def test_without_the_key_of_the_service_the_message_says_so(run, live, monkeypatch):
    keyed = LiveService(live.settings.model_copy(update={"api_key": "secret"}))
    keyed.start()
    shown = run("status"), run("status", "--api-key", "secret")
    keyed.stop()
    assert [s.exit_code for s in shown] == [2, 0]
    assert "API key" in shown[0].stderr


@pytest.fixture
def composition_root(monkeypatch):
    """Stands in for `serve_app.main`, which needs Ray; notes what it is called with."""
    root = types.ModuleType("serve_app.main")
    root.served, root.down = [], lambda settings: False
    root.serve = root.served.append
    monkeypatch.setitem(sys.modules, "serve_app.main", root)
    monkeypatch.setattr("serve_app.main", root, raising=False)
    return root


def test_serve_hands_its_flags_to_the_composition_root(run, composition_root, settings):
    assert run("serve", "--device", "cpu", "--max-replicas", 2, "--model", "dinov2-large").exit_code == 0
    [served] = composition_root.served
    assert (served.device, served.max_replicas, served.model, served.port) == ("cpu", 2, "dinov2-large", settings.port)


def test_a_service_that_cannot_start_exits_3_with_its_reason(run, composition_root):
    def serve(settings):
        raise Unavailable("cannot listen on 127.0.0.1:8000")

    composition_root.serve = serve
    shown = run("serve")
    assert (shown.exit_code, shown.stderr) == (3, "constellate: cannot listen on 127.0.0.1:8000\n")


def test_where_the_client_alone_is_installed_serve_exits_3_and_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "serve_app.main", raising=False)
    monkeypatch.delattr("serve_app.main", raising=False)
    shown = run("serve")
    assert (shown.exit_code, shown.stderr) == (
        3,
        "constellate: this needs ray, which comes with the service: pip install 'constellate[service]'\n",
    )


@pytest.mark.parametrize(("was_there", "text"), [(True, "Stopped."), (False, "No service is deployed on the cluster.")])
def test_down_on_a_cluster_asks_the_composition_root(run, composition_root, was_there, text):
    composition_root.down = lambda settings: was_there
    assert run("down", "--cluster").stdout.strip() == text


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_done(run, flowers, monkeypatch, tmp_path):
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    shown = run("embed", flowers)
    assert shown.exit_code == 2
    assert f"cannot be written to {tmp_path}" in shown.stderr


def test_down_without_a_service_is_content(run, settings):
    shown = run("down")
    assert (shown.exit_code, shown.stdout) == (0, f"No service runs for {settings.data_dir}.\n")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("u"), 2),
        (SettingsError("s"), 2),
        (UnknownModel("m"), 2),
        (JobFailed("j"), 1),
        (ServiceError("s"), 1),
        (OSError(28, "No space left on device"), 1),
        (Unreachable("u"), 3),
        (NothingThere("n"), 3),
        (ModelUnavailable("m"), 3),
        *((Refused(status, {}), 2) for status in (400, 401, 403, 404, 413, 415, 422)),
        (Refused(409, {}), 1),
        (Refused(500, {}), 1),
        (Refused(503, {}), 3),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else "",
)
def test_every_error_has_its_exit_code(error, code):
    assert exit_code(error) == code
