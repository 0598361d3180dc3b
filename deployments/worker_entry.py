"""What the raylet runs for each worker, by its path: it asks the template for a fork, and else is the worker itself.

Only the standard library is imported, because this program ends as soon as the fork is there.
"""

import importlib.util
import json
import os
import runpy
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import TypedDict

ADDRESS = "WORKER_TEMPLATE"
"""The environment variable that names the template's socket."""

LENGTH = struct.Struct("!I")
ACCEPTED = b"y"
ANSWER_S = 30.0
"""The template may be frozen; it imports for some seconds, and the raylet waits a minute for a worker."""

OOM_SCORE = Path("/proc/self/oom_score_adj")


class Request(TypedDict):
    """What a fork takes over from the process that the raylet started; its three streams travel beside it."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    module_path: list[str]
    niceness: int
    oom_score: str
    blocked_signals: list[int]


def request() -> Request:
    """The request of this process; the first entry of the module path is the program's own folder and is left out."""
    return {
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "module_path": sys.path[1:],
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "oom_score": OOM_SCORE.read_text(),
        "blocked_signals": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }


def is_forked() -> bool:
    """Ask the template for a worker in place of this process, and return whether it made one."""
    address = os.environ.get(ADDRESS)
    if address is None:
        return False
    try:
        body = json.dumps(request()).encode()
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(ANSWER_S)
            link.connect(address)
            socket.send_fds(link, [LENGTH.pack(len(body))], [0, 1, 2])
            link.sendall(body)
            return link.recv(1) == ACCEPTED
    except OSError:  # the template has ended or does not answer, or this process cannot be described
        return False


def run_worker(arguments: list[str]) -> None:
    """Run the program of Ray's own workers in this process."""
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.submodule_search_locations is not None
    program = Path(ray.submodule_search_locations[0]) / "_private" / "workers" / "default_worker.py"
    sys.argv = [str(program), *arguments]
    sys.path[0] = str(program.parent)
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__" and not is_forked():
    run_worker(sys.argv[1:])
