"""Requests that collide, cancel, or lose their files: one job at a time, and old vectors bit for bit."""

import asyncio
import time
from contextlib import nullcontext

import httpx
import pytest

from tests.faults.album import Album
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.wait import PATIENCE_S
from tests.faults.watching import Follower
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.faults

CALLERS = 50


async def _post(http: httpx.AsyncClient, path: str) -> httpx.Response:
    """What is answered in the end: on a busy machine the last of the callers may be told to come again."""
    while (answer := await http.post(path, json={"force": True})).status_code == 503:
        await asyncio.sleep(float(answer.headers["Retry-After"]))
    return answer


async def _post_together(http: httpx.AsyncClient, path: str) -> list[httpx.Response]:
    return await asyncio.gather(*(_post(http, path) for _ in range(CALLERS)))


@pytest.mark.every
@pytest.mark.parametrize("n_rounds", [6, 100])
def test_of_fifty_that_post_at_once_one_gets_the_job_and_the_others_its_id(album: Album, n_rounds: int):
    exact = album.exact()

    async def rounds() -> list[str]:
        jobs = []
        limits = httpx.Limits(max_connections=CALLERS)
        async with httpx.AsyncClient(base_url=album.service.settings.url, timeout=PATIENCE_S, limits=limits) as http:
            for _ in range(n_rounds):
                answers = await _post_together(http, f"{album.path}/generate")
                codes = sorted(answer.status_code for answer in answers)
                # All are told 409 where the call that began the job was answered 503 first.
                assert codes in ([202] + [409] * (CALLERS - 1), [409] * CALLERS)
                [job_id] = {answer.json()["job_id"] for answer in answers}
                jobs.append(job_id)
                # 409 where the machine was so busy that the job came to its end first.
                assert (await http.post(f"{album.path}/cancel")).status_code in {202, 409}
        return jobs

    began = time.monotonic()
    jobs = asyncio.run(rounds())
    seconds = time.monotonic() - began
    assert len(set(jobs)) == n_rounds
    ends = {album.job(job_id)["status"] for job_id in jobs}
    assert "cancelled" in ends
    if ends == {"cancelled"}:
        assert album.exact() == exact
    else:
        assert ends == {"cancelled", "complete"}
        album.check()
    measured("50 at once", rounds=n_rounds, posts=n_rounds * CALLERS, posts_per_s=n_rounds * CALLERS / seconds)


@pytest.mark.parametrize("moment", ["before the first image", "in the middle"])
def test_a_cancelled_job_leaves_every_bit_as_it_was(album: Album, moment: str):
    http = album.service.http
    exact = album.exact()
    with OpenedFiles(album.root) as opened:
        job_id = album.generate()
        follower = Follower(album.service.settings.url, album.dataset_id).start()
        with album.half_way(opened, follower) if moment == "in the middle" else nullcontext():
            cancelled = http.post(f"{album.path}/cancel")
    assert (cancelled.status_code, cancelled.json()["job_id"]) == (202, job_id)
    assert http.post(f"{album.path}/cancel").status_code == 409
    assert follower.end()["status"] == "cancelled"
    assert album.exact() == exact
    # Chunks that were on their way arrive at nothing, and the window is free for the next job.
    assert album.job(job_id)["status"] == "cancelled"


def test_cancelling_after_the_end_is_refused_and_changes_nothing(album: Album):
    exact = album.exact()
    assert album.service.http.post(f"{album.path}/cancel").status_code == 409
    assert album.exact() == exact


def test_a_folder_that_vanishes_in_a_job_fails_it_and_keeps_the_old_set(album: Album):
    service = album.service
    root = make_folder(service.roots / "vanishing", n_images=48, seed=5)
    vanishing = Album.register(service, root)
    vanishing.embed()
    exact = vanishing.exact()
    with OpenedFiles(root) as opened:
        job_id = vanishing.generate()
        follower = Follower(service.settings.url, vanishing.dataset_id).start()
        with vanishing.half_way(opened, follower):
            away = root.rename(service.roots / "away")
    end = follower.end()
    assert (end["status"], end["job_id"]) == ("error", job_id)
    assert "root_unavailable" in end["message"]
    assert str(service.roots) not in end["message"]
    assert vanishing.exact() == exact

    away.rename(root)
    vanishing.generate(force=False)
    assert Follower(service.settings.url, vanishing.dataset_id).start().end()["status"] == "complete"
    assert [job["reused"] for job in service.http.get("/jobs").json()[:1]] == [48]
