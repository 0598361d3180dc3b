"""The process whose forks are the workers: `deployments/worker_template.py`."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.album import Album
from tests.faults.service import Service
from tests.faults.wait import until

pytestmark = [pytest.mark.faults, pytest.mark.skipif(sys.platform != "linux", reason="the template is for Linux")]

WORKERS = ("controller", "proxy", "replica", "ingress", "JobRunner", "Searcher", "writer")


def template(service: Service) -> int:
    [found] = [
        p.pid for p in service.processes() if "deployments.worker_template" in p.title and "ray::" not in p.title
    ]
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_workers_are_forks_and_parts_come_back_as_interpreters_of_their_own_when_the_template_is_dead(
    service: Service, album: Album
):
    parents = {part: {parent(pid) for pid in service.pids(part)} for part in WORKERS}
    assert parents == {part: {template(service)} for part in WORKERS}

    os.kill(template(service), signal.SIGKILL)
    killed = service.kill("JobRunner")
    until(lambda: service.pids("JobRunner") not in ([], [killed]))
    [successor] = service.pids("JobRunner")
    assert parent(successor) in service.pids("raylet")
    assert album.embed()["status"] == "complete"

    service.stop()  # the next test gets one with a template
    until(lambda: not service.processes(), lambda: str(service.processes()))
