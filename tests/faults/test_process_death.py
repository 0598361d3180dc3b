"""Any one process is killed in the middle of a job: the job ends whole, and nothing is computed twice for long."""

import random
import time

import pytest

from tests.faults.album import Album
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.watching import watched

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

CHUNK = 16
WINDOW = 3
"""Chunks in flight with one replica (`Policy.window`)."""
BLOCK = 128
"""Rows gathered for one commit (`embed_job.BLOCK_ROWS`)."""

REPEATED_AT_MOST = {
    "replica": WINDOW * CHUNK,
    "JobRunner": 2 * WINDOW * CHUNK + BLOCK,
    "ingress": 0,
    "proxy": 0,
    "controller": 0,
    "writer": 0,
}
"""Images that are embedded again: those in flight with what died."""

OF_SERVE = {"ingress": {500}, "proxy": {0, 404}}
"""What Serve itself answers: for requests that died with their ingress, and from a proxy that has no routes yet."""

RECOVERS_IN_S = {"replica": 30, "JobRunner": 40, "ingress": 30, "proxy": 30, "controller": 10, "writer": 20}


@pytest.mark.parametrize("part", REPEATED_AT_MOST)
def test_a_job_survives_the_death_of_its(album: Album, part: str):
    service, url = album.service, album.service.settings.url
    before = album.status()["job_id"]
    with OpenedFiles(album.root) as opened, watched(url, album.dataset_id) as (follower, reader):
        job_id = album.generate()
        follower.start()
        follower.await_processed(album.n_images // 3)
        died_at = time.monotonic()
        pid = service.kill(part)
        end = follower.end()
        counts = opened.counts()
        reader.stop()

    assert (end["status"], end["job_id"]) == ("complete", job_id)
    assert (end["processed"], end["skipped"], end["total"]) == (album.n_images, 0, album.n_images)
    album.check()
    # Readers saw the old set until the new one was whole.
    assert reader.sets() <= {(album.n_images, before), (album.n_images, job_id)}
    # Where there is one ingress, Serve's proxy keeps requests until its successor is there.
    assert reader.slowest_s() < (RECOVERS_IN_S[part] if part == "ingress" else 6.0)
    assert reader.codes() <= {200, 503} | OF_SERVE.get(part, set())
    again = sum(counts.values()) - album.n_images
    assert 0 <= again <= REPEATED_AT_MOST[part]
    recovery_s = follower.advanced_after(died_at)
    measured(
        f"SIGKILL {part} (pid {pid})",
        progress_after_s=recovery_s,
        api_back_after_s=reader.outage_s(died_at),
        slowest_read_s=reader.slowest_s(),
        images_again=again,
        stream_connections=follower.n_connections,
        codes=sorted(reader.codes()),
    )
    assert recovery_s < RECOVERS_IN_S[part]


def test_a_job_survives_its_writer_dying_again_and_again(album: Album):
    service, url = album.service, album.service.settings.url
    chance = random.Random(7)
    n_kills = 0
    with OpenedFiles(album.root) as opened, watched(url, album.dataset_id) as (follower, reader):
        job_id = album.generate()
        follower.start()
        while n_kills < 5:
            time.sleep(chance.uniform(0.5, 2.0))
            if follower.is_over:
                break
            service.kill("writer")
            n_kills += 1
        end = follower.end()
        counts = opened.counts()
        reader.stop()
    assert n_kills >= 3
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, album.n_images)
    assert sum(counts.values()) == album.n_images
    album.check()
    measured(f"SIGKILL writer, {n_kills} times in one job", images_again=0, codes=sorted(reader.codes()))
