"""A process that has imported what every worker needs, and forks the workers of one machine.

Ray starts each worker as a new interpreter. Ray Serve's own modules take 1.7 s of CPU and 110 MiB in each of nine
processes; forks share both. What the raylet starts in place of a worker is `worker_entry`. Where it gets no fork it is
a worker as Ray has them: the template has ended, the worker is of another job or has other modules or variables, or the
sources on disk are no longer those that the template has imported.
"""

import importlib
import json
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deployments import worker_entry
from deployments.code_on_disk import Code
from deployments.worker_entry import ACCEPTED, ADDRESS, LENGTH, OOM_SCORE, Request
from deployments.worker_imports import JOB_ID, LIBRARIES, NO_JOB, load

log = logging.getLogger("constellate")

BACKLOG = 64
N_STREAMS = 3
REQUEST_S = 1.0
"""A process sends its request at once. One that does not, because it is frozen, must not keep others waiting."""


@contextmanager
def running() -> Iterator[None]:
    """Keep a template for the Ray that this process starts in the block; it ends with the block or the process.

    Where the machine has no room for it, or the path of its socket is too long, a warning says so and there is none.
    """
    if sys.platform != "linux":  # macOS has no safe fork
        yield
        return
    with tempfile.TemporaryDirectory(prefix="constellate-", ignore_cleanup_errors=True) as folder:
        address = Path(folder) / "workers"
        try:
            template = _start(address)
        except OSError as error:
            log.warning("workers start without a template (%s)", error)
            yield
            return
        with template:
            os.environ[ADDRESS] = str(address)
            _make_ray_use_it()
            try:
                yield
            finally:
                template.kill()
                del os.environ[ADDRESS]


def _start(address: Path) -> subprocess.Popen[bytes]:
    """Start a template that listens at this path. Raises `OSError`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(BACKLOG)
        command = [sys.executable, "-m", __name__, str(listener.fileno())]
        return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])


def _make_ray_use_it() -> None:
    """Put `worker_entry` in place of the program that the raylet runs; Ray 2.60 has no setting for it."""
    from ray._private.node import Node

    start_raylet: Any = Node.start_raylet

    def start_raylet_with_entry(node: Any, *args: object) -> None:
        node._ray_params.worker_path = worker_entry.__file__
        start_raylet(node, *args)

    Node.start_raylet = start_raylet_with_entry  # type: ignore[method-assign, assignment]


class Template:
    """Answers the requests that arrive at its listener, one after another."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._module_path = sys.path[1:]  # as it is now: Ray adds to it when it is imported
        self._code = Code()
        self._environment: dict[str, str] | None = None
        self._job: str | None = None

    def next_worker(self) -> Request | None:
        """Return in each fork with its request, and in the template with None when its standard input ends."""
        while True:
            ready, _, _ = select.select([self._listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            link, _ = self._listener.accept()
            link.settimeout(REQUEST_S)
            with link, suppress(OSError, ValueError, struct.error):  # the other process has ended, or is frozen
                request = self._fork(link)
                if request is not None:
                    return request

    def _fork(self, link: socket.socket) -> Request | None:
        """Answer one process, and return in the fork with its request."""
        head, streams, _, _ = socket.recv_fds(link, LENGTH.size, N_STREAMS)
        try:
            with link.makefile("rb") as body:
                request: Request = json.loads(body.read(*LENGTH.unpack(head)))
            if len(streams) != N_STREAMS or not self._suits(request) or not is_new_process():
                return None
            self._take_over(link, streams, request)
            return request
        finally:
            for stream in streams:
                os.close(stream)

    def _take_over(self, link: socket.socket, streams: list[int], request: Request) -> None:
        """Be the worker in this fork, and say so. A fork that cannot ends: the process that asks is then the worker."""
        try:
            self._listener.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            streams.clear()
            become(request)
            link.sendall(ACCEPTED)  # this fails if the process waits no longer
        except Exception as error:  # it must not reach the template's loop, which would then run twice
            with suppress(OSError):
                print(f"a fork cannot take over a worker ({error!r})", file=sys.stderr, flush=True)
            os._exit(1)

    def _suits(self, request: Request) -> bool:
        """Whether a fork would be as the process that asks; the first one chooses the variables, and one the job."""
        environment = {name: text for name, text in request["environment"].items() if name != JOB_ID}
        if self._environment is None:
            self._load(environment)
        return (
            self._code.is_on_disk()
            and request["module_path"] == self._module_path
            and environment == self._environment
            and self._is_our_job(request["environment"].get(JOB_ID, NO_JOB))
        )

    def _load(self, environment: dict[str, str]) -> None:
        """Import what workers need; any error ends the template, which may have half of it."""
        self._environment = environment
        try:
            load(environment)
            is_whole = self._code.is_on_disk()
        except (OSError, ValueError) as error:
            raise RuntimeError("the template cannot import what workers need; they start without it") from error
        if not is_whole:
            raise RuntimeError("the sources changed while they were imported; workers start without a template")
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers that have ended

    def _is_our_job(self, job: str) -> bool:
        """Whether a worker is of the first job, that of the process which started Ray, or is of none yet.

        Ray puts the folder of another job's driver before the module path, but only when the worker runs: a fork would
        not look there for a package that has the name of one of ours.
        """
        if job == NO_JOB:
            return True
        self._job = self._job or job
        return job == self._job


def is_new_process() -> bool:
    """Fork, and return whether this is the new process; where the machine has no room for one, only write a line."""
    try:
        return os.fork() == 0
    except OSError as error:
        print(f"a worker is no fork of the template ({error})", file=sys.stderr, flush=True)
        return False


def become(request: Request) -> None:
    """Give this fork what the process that asked for it has.

    Raises:
        OSError: the machine does not let it, for example lower its niceness.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # all forks would draw the same from the template's
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked_signals"])
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
    if OOM_SCORE.read_text() != request["oom_score"]:  # not every container lets it be written
        OOM_SCORE.write_text(request["oom_score"])


def main(listener: socket.socket) -> None:
    """Fork workers until standard input ends; return also in each worker at its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal
    request = None
    try:
        template = Template(listener)
        for name in LIBRARIES:
            importlib.import_module(name)
        request = template.next_worker()
    finally:
        if request is None:
            _remove(Path(listener.getsockname()))
    if request is not None:
        worker_entry.run_worker(request["arguments"])


def _remove(address: Path) -> None:
    """Remove the socket and its folder in place of a service that was killed."""
    with suppress(OSError):  # a service that stops removes them too
        address.unlink()
        address.parent.rmdir()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
