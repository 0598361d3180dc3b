"""The template and what asks it for forks, without a Ray cluster: a program of this test stands for Ray's worker."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import worker_entry, worker_template
from deployments.worker_entry import ADDRESS
from tests.faults.wait import PATIENCE_S, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the template is for Linux")

WORKER = """
import json, os, pathlib, signal, sys
if "numpy" in sys.modules:
    print(sys.modules["numpy"].random.random())
print(json.dumps({
    "job": os.environ["RAY_JOB_ID"],
    "folder": os.getcwd(),
    "arguments": sys.argv[1:],
    "blocks_sigint": signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []),
    "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    "oom_score": int(pathlib.Path("/proc/self/oom_score_adj").read_text()),
}))
print("a fork" if "deployments.worker_template" in sys.modules else "an interpreter of its own", flush=True)
print(sys.stdin.readline())
"""

RAYLET = """
import os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.nice(3)
pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

TEMPLATE = """
import os, pathlib, socket, sys
from deployments import worker_template

def load(environment):
    sys.path.append("/of/an/import")
    exec(environment.get("IMPORTED", ""))

worker_template.LIBRARIES = ()
worker_template.load = load
worker_template.main(socket.socket(fileno=int(sys.argv[1])))
"""

IDENTIFIERS = """
import os
from deployments import worker_imports
worker_imports.load(dict(os.environ))
print(worker_imports.drawn_in_a_fork() == worker_imports.drawn_in_a_fork())
from ray._raylet import UniqueID
UniqueID.from_random()
try:
    worker_imports.load(dict(os.environ))
except RuntimeError as error:
    print(error)
"""


class Machine:
    """A template, and what a raylet would start."""

    def __init__(self, folder: Path) -> None:
        program = folder / "ray" / "_private" / "workers" / "default_worker.py"
        program.parent.mkdir(parents=True)
        program.write_text(WORKER)
        (folder / "ray" / "__init__.py").touch()
        shutil.copytree(Path(worker_entry.__file__).parent, folder / "deployments")
        self.source = folder / "serve_app" / "source.py"
        self.source.parent.mkdir()
        self.source.write_text("A = 1\n")
        self.folder = folder
        self.address = folder / "sockets" / "workers"
        self.address.parent.mkdir()
        self.environment = os.environ | {"PYTHONPATH": str(folder), "RAY_JOB_ID": "ffffffff"}

    def start(self) -> subprocess.Popen[bytes]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.address))
            listener.listen()
            number = listener.fileno()
            command = [sys.executable, "-c", TEMPLATE, str(number)]
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, pass_fds=[number], env=self.environment, cwd=self.folder
            )

    def worker(self, **variables: str) -> list[str]:
        """What a worker with these variables writes to its standard output, which ends with the worker."""
        with self.process(**variables) as process:
            written, _ = process.communicate(timeout=PATIENCE_S)
        return written.splitlines()[:-1]

    def process(self, *wrapper: str, **variables: str) -> subprocess.Popen[str]:
        """What the raylet starts, or what starts it; its worker ends with the first line of its standard input."""
        command = [sys.executable, *wrapper, str(self.folder / "deployments" / "worker_entry.py"), "--worker"]
        environment = self.environment | {ADDRESS: str(self.address)} | variables
        return subprocess.Popen(
            command, env=environment, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def template(machine: Machine) -> Iterator[subprocess.Popen[bytes]]:
    with machine.start() as template:
        yield template
        template.kill()


@pytest.mark.parametrize("job", ["ffffffff", "01000000"])
def test_a_fork_has_what_the_process_that_asked_has(job, machine, template):
    with machine.process("-c", RAYLET, RAY_JOB_ID=job) as process:
        taken_over, kind, _ = process.communicate(timeout=PATIENCE_S)[0].splitlines()

    assert kind == "a fork"
    assert json.loads(taken_over) == {
        "job": job,
        "folder": str(machine.folder),
        "arguments": ["--worker"],
        "blocks_sigint": True,
        "niceness": min(os.getpriority(os.PRIO_PROCESS, 0) + 3, 19),
        "oom_score": 1000,
    }


def test_a_worker_with_other_variables_or_modules_is_an_interpreter_of_its_own(machine, template):
    assert machine.worker()[-1] == "a fork"

    assert machine.worker(OMP_NUM_THREADS="7")[-1] == "an interpreter of its own"
    more = os.pathsep.join([machine.environment["PYTHONPATH"], str(machine.folder / "more")])
    machine.environment["PYTHONPATH"] = more  # the same variables as the template's but for the path
    assert machine.worker()[-1] == "an interpreter of its own"


def test_a_worker_of_another_job_is_an_interpreter_of_its_own(machine, template):
    """Its driver may have packages with the names of ours, and Ray shows their folder to the running worker alone."""
    jobs = ("ffffffff", "01000000", "02000000", "01000000", "ffffffff")

    kinds = [machine.worker(RAY_JOB_ID=job)[-1] for job in jobs]

    assert kinds == ["a fork", "a fork", "an interpreter of its own", "a fork", "a fork"]


def test_a_worker_has_the_sources_that_are_on_disk_when_it_starts(machine, template):
    assert machine.worker()[-1] == "a fork"

    machine.source.write_text("A = 2\n")
    assert machine.worker()[-1] == "an interpreter of its own"
    machine.source.write_text("A = 1\n")  # only its time of change is another
    assert machine.worker()[-1] == "a fork"
    machine.source.with_name("added.py").touch()
    assert machine.worker()[-1] == "an interpreter of its own"


def test_a_template_whose_sources_change_while_it_imports_them_forks_no_worker(machine, template):
    change = "pathlib.Path('serve_app/source.py').write_text('A = 2')"

    assert machine.worker(IMPORTED=change)[-1] == "an interpreter of its own"
    assert template.wait(PATIENCE_S) == 1


def test_a_service_whose_temporary_folder_has_a_long_path_starts_without_a_template(tmp_path, monkeypatch, caplog):
    folder = tmp_path / ("f" * 120)  # the path of a Unix socket has at most 107 bytes
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    with worker_template.running():
        assert ADDRESS not in os.environ

    assert caplog.messages == ["workers start without a template (AF_UNIX path too long)"]
    assert list(folder.iterdir()) == []


def test_a_service_that_cannot_start_its_template_starts_without_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))

    with worker_template.running():
        assert ADDRESS not in os.environ

    assert len(caplog.messages) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_service_whose_temporary_folder_was_emptied_stops_without_an_error(monkeypatch):
    monkeypatch.setattr(worker_template, "_make_ray_use_it", lambda: None)

    with worker_template.running():
        shutil.rmtree(Path(os.environ[ADDRESS]).parent)

    assert ADDRESS not in os.environ


def test_workers_start_without_a_template_that_has_ended(machine, template):
    template.kill()
    template.wait()

    assert machine.worker()[-1] == "an interpreter of its own"


def test_a_template_ends_with_the_process_that_started_it_and_its_forks_go_on(machine, template):
    with machine.process() as process:
        assert [process.stdout.readline(), process.stdout.readline()][-1] == "a fork\n"
        template.stdin.close()
        assert template.wait(PATIENCE_S) == 0
        assert not machine.address.parent.exists()

        assert process.communicate("it goes on\n", PATIENCE_S)[0].splitlines()[0] == "it goes on"


@pytest.mark.parametrize("call", ["fork", "dup2", "chdir", "setpriority"])
def test_a_worker_whose_fork_fails_is_an_interpreter_of_its_own(call, machine, template):
    refuse = f"def refuse(*_):\n  raise OSError('no room')\nos.{call} = refuse"

    assert [machine.worker(IMPORTED=refuse)[-1] for _ in range(2)] == ["an interpreter of its own"] * 2
    assert template.poll() is None
    until(lambda: Path(f"/proc/{template.pid}/task/{template.pid}/children").read_text() == "")


def test_a_process_that_dies_while_it_asks_costs_only_its_own_worker(machine, template):
    for said in (b"", b"\0", b"\0\0\0\7{"):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(machine.address))
            link.sendall(said)

    assert machine.worker()[-1] == "a fork"


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\0\7{"])
def test_a_process_that_freezes_while_it_asks_does_not_keep_others_from_their_forks(said, machine, template):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(machine.address))
        link.sendall(said)

        assert machine.worker()[-1] == "a fork"
        template.stdin.close()
        assert template.wait(PATIENCE_S) == 0


def test_forks_of_the_template_draw_different_numbers_from_numpys_global_generator(machine, template):
    drawn = {machine.worker(IMPORTED="import numpy")[0] for _ in range(2)}

    assert len(drawn) == 2


def test_forks_of_the_template_draw_different_identifiers_and_a_parent_that_has_drawn_one_is_no_template():
    """Ray gives two objects of two workers the same identifier otherwise, and each reads the other's."""
    ran = subprocess.run(
        [sys.executable, "-c", IDENTIFIERS], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert ran.stdout.splitlines() == [
        "False",
        "an import draws Ray's identifiers; workers start without a template",
    ], ran.stderr
