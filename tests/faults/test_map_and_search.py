"""The processes of maps and searches are killed while they are asked: the answers come all the same."""

import os
import signal
import time

import httpx
import pytest

from tests.faults.album import Album, patiently
from tests.faults.report import measured
from tests.faults.service import Service
from tests.faults.wait import until
from tests.faults.watching import Follower
from tests.ray.client import reduce

pytestmark = pytest.mark.faults


def points_of(album: Album) -> dict[str, tuple[float, float]]:
    points = patiently(album.service.http, "GET", f"{album.path}/coordinates").json()
    return {point["sampleId"]: (point["x"], point["y"]) for point in points}


@pytest.fixture
def mapped(album: Album) -> Album:
    """The album with a map, whose processes therefore run and have compiled what they need."""
    assert reduce(album.service.http, album.dataset_id)["status"] == "complete"
    assert set(points_of(album)) == set(album.vectors)
    return album


def begin_a_map_that_waits(album: Album, fit: int) -> tuple[str, Follower]:
    """A map whose child process is frozen, so that it cannot end before something has happened to it."""
    os.kill(fit, signal.SIGSTOP)
    answer = album.service.http.post(f"{album.path}/reduce", json={"random_state": 7})
    assert answer.status_code == 202, answer.text
    follower = Follower(album.service.settings.url, album.dataset_id, kind="reduce/progress").start()
    until(lambda: any(seen.event["status"] == "fitting" for seen in follower.seen), lambda: str(follower.seen))
    return answer.json()["job_id"], follower


def is_running(service: Service, pid: int) -> bool:
    return any(process.pid == pid for process in service.processes())


@pytest.mark.parametrize("part", ["Reducer", pytest.param("fit", marks=pytest.mark.every)])
def test_a_map_survives_the_death_of_its(mapped: Album, part: str):
    service = mapped.service
    before = points_of(mapped)
    [reducer], [fit] = service.pids("Reducer"), service.pids("fit")
    job_id, follower = begin_a_map_that_waits(mapped, fit)
    died_at = time.monotonic()
    service.kill(part)
    if part == "Reducer":
        os.kill(fit, signal.SIGCONT)
    until(lambda: not is_running(service, fit))
    end = follower.end()

    assert (end["status"], end["job_id"]) == ("complete", job_id)
    assert (service.pids("Reducer") == [reducer]) == (part == "fit")
    assert service.pids("fit") != [fit]
    after = points_of(mapped)
    assert after.keys() == before.keys()
    assert after != before  # another seed: these are not the earlier map's
    measured(f"SIGKILL {part} in a map", map_after_s=follower.seen[-1].at - died_at)


def test_questions_survive_the_death_of_the_searcher(album: Album):
    service = album.service
    path = f"{album.path.removesuffix('/embeddings')}/similarity/{min(album.vectors)}"
    expected = patiently(service.http, "GET", path).json()
    pid = service.kill("Searcher")
    died_at = time.monotonic()
    answers: list[httpx.Response] = []

    def is_answered() -> bool:
        answers.append(service.http.get(path))
        return answers[-1].status_code == 200

    until(is_answered, lambda: answers[-1].text)
    assert answers[-1].json() == expected
    refusals = answers[:-1]
    assert {answer.status_code for answer in refusals} <= {503}
    assert all(answer.headers["Retry-After"] for answer in refusals)
    assert pid not in service.pids("Searcher")
    measured("SIGKILL Searcher", answered_after_s=time.monotonic() - died_at, refusals=len(refusals))
