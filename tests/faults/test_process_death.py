"""Any one process is killed in the middle of a job: the job ends whole, and nothing is computed twice for long."""

import random
import time

import pytest

from tests.faults.album import Album
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.watching import Follower, watched
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.faults

REPEATED_AT_MOST = {
    "replica": 1,
    "JobRunner": 2,  # and as many embedded but not committed
    "ingress": 0,
    "proxy": 0,
    "controller": 0,
    "writer": 0,
}
"""How often those in flight (`Service.in_flight`) are embedded again."""

OF_SERVE = {"ingress": {500}, "proxy": {0}}
"""What Serve itself answers for requests that died with their ingress, and that nobody answers without a proxy."""

RECOVERS_WITHIN = 2.0
"""Starts of the whole service that a single part takes at most. On an idle machine it is a tenth to a half of one."""


@pytest.mark.parametrize("part", REPEATED_AT_MOST)
def test_a_job_survives_the_death_of_its(album: Album, part: str):
    service, url = album.service, album.service.settings.url
    at_most_s = RECOVERS_WITHIN * service.longest_start_s
    before = album.status()["job_id"]
    # So many streams that each ingress has some, whichever dies.
    others = [Follower(url, album.dataset_id) for _ in range(3)]
    with OpenedFiles(album.root) as opened, watched(url, album.dataset_id) as (follower, reader):
        job_id = album.generate()
        for each in (follower, *others):
            each.start()
        with album.half_way(opened, follower):
            died_at = time.monotonic()
            pid = service.kill(part)
        end = follower.end()
        counts = opened.counts()
        reader.await_answer()
        reader.stop()

    assert (end["status"], end["job_id"]) == ("complete", job_id)
    assert (end["processed"], end["skipped"], end["total"]) == (album.n_images, 0, album.n_images)
    assert [other.end()["job_id"] for other in others] == [job_id] * len(others)
    album.check()
    # Readers saw the old set until the new one was whole.
    assert reader.sets() <= {(album.n_images, before), (album.n_images, job_id)}
    assert reader.slowest_s() < at_most_s
    assert reader.codes() <= {200, 503} | OF_SERVE.get(part, set())
    assert reader.outage_s(died_at) < at_most_s
    again = sum(counts.values()) - album.n_images
    assert 0 <= again <= REPEATED_AT_MOST[part] * service.in_flight
    stalled_s = follower.stalled_s(died_at)
    measured(
        f"SIGKILL {part} (pid {pid})",
        progress_stalled_s=stalled_s,
        api_back_after_s=reader.outage_s(died_at),
        slowest_read_s=reader.slowest_s(),
        images_again=again,
        stream_connections=[each.n_connections for each in (follower, *others)],
        codes=sorted(reader.codes()),
    )
    assert stalled_s < at_most_s
    if part == "ingress":
        connections = {each.n_connections for each in (follower, *others)}
        assert min(connections) == 1 < max(connections)


@pytest.mark.every
def test_a_job_survives_its_writer_dying_again_and_again(album: Album):
    service, url = album.service, album.service.settings.url
    large = Album.register(service, make_folder(service.roots / "writers", n_images=128, seed=15))
    chance = random.Random(7)
    n_kills = 0
    with OpenedFiles(large.root) as opened, watched(url, large.dataset_id) as (follower, reader):
        job_id = large.generate()
        follower.start()
        while n_kills < 5:
            time.sleep(chance.uniform(0.3, 1.5))
            if follower.is_over:
                break
            service.kill("writer")
            n_kills += 1
        end = follower.end()
        counts = opened.counts()
        reader.stop()
    assert n_kills >= 3
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, large.n_images)
    assert sum(counts.values()) == large.n_images
    large.remember(service.settings.model)
    measured(f"SIGKILL writer, {n_kills} times in one job", images_again=0, codes=sorted(reader.codes()))
