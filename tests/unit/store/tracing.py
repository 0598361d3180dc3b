"""A process whose system calls on the database files are counted, recorded, killed or failed, with strace."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from typing import NamedTuple

CALLS = ("fdatasync", "write", "pwrite64", "ftruncate", "rename", "unlink")
"""Every call by which DuckDB changes its files."""

_LINE = re.compile(r'^(\d+) +(\w+)\((?:\d+<([^>]*)>|"([^"]*)")(?:, "((?:\\x[0-9a-f]{2})*)"(?:, \d+(?:, (\d+))?)?)?')
_TIMEOUT_S = 240


class Operation(NamedTuple):
    """One change of a file. A write has its data, and its offset unless it appends; a rename has the new path."""

    thread: int
    call: str
    path: str
    data: bytes = b""
    offset: int | None = None


@cache
def why_not():
    """Why processes cannot be traced here; None when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"strace is not permitted here: {tried.stderr.strip()}"


def run(path, acknowledged, *options, log=os.devnull):
    """Live the story on a database under strace; returns its exit status, -9 when it was killed."""
    # Not with --seccomp-bpf: strace 6.1 then injects at the first call only, whatever `when` says.
    command = ["strace", "-f", "-qq", "-o", str(log), *_watched(path), *options]
    command += [sys.executable, "-m", "tests.unit.store.crash_workload", "story", str(path), str(acknowledged)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def record(path, acknowledged, log):
    """Live the story once without faults; every operation on the database's files and the acknowledgements, in order.

    A call is recorded when it begins; the one thread that makes it waits for its end.
    """
    options = ["-y", "-xx", "-s", "10000000", "-e", f"trace={','.join(CALLS)}", "-P", str(acknowledged)]
    assert run(path, acknowledged, *options, log=log) == 0
    with open(log, encoding="ascii") as lines:
        matches = [match for match in map(_LINE.match, lines) if match]
    return [
        Operation(
            int(thread),
            call,
            _text(fd_path or name),
            bytes.fromhex((data or "").replace("\\x", "")),
            None if offset is None else int(offset),
        )
        for thread, call, fd_path, name, data, offset in (match.groups() for match in matches)
    ]


def _text(path):
    """A path, which `-xx` may have put in hexadecimal."""
    return bytes.fromhex(path.replace("\\x", "")).decode() if path.startswith("\\x") else path


def _watched(path):
    return [part for file in _files(path) for part in ("-P", str(file))]


def _files(path):
    """The database's file and its log, under the names they are born with and those they live under."""
    return [f"{path}{ending}" for ending in ("", ".wal", ".new", ".new.wal")]
