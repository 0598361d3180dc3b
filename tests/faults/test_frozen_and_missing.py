"""Parts that hang or lack something: callers get a reason within seconds, and nothing is done twice."""

import os
import signal
import time

import httpx
import pytest

from tests.faults.album import Album
from tests.faults.report import measured
from tests.faults.wait import until
from tests.faults.watching import watched

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

FROZEN_S = 6.0
ANSWER_WITHIN_S = 6.0
"""Store calls wait for five seconds; one is for the way there and back."""


def timed(http: httpx.Client, method: str, path: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = http.request(method, path)
    return answer, time.monotonic() - began


def test_while_the_writer_is_frozen_every_call_is_refused_in_time_and_nothing_is_lost(album: Album):
    service, http = album.service, album.service.http
    with watched(service.settings.url, album.dataset_id) as (follower, _):
        job_id = album.generate()
        follower.start()
        follower.await_processed(album.n_images // 4)
        assert http.get("/readyz").status_code == 200
        pid = service.kill("writer", signal.SIGSTOP)
        frozen_at = time.monotonic()
        try:
            read, read_s = timed(http, "GET", "/jobs")
            healthz, healthz_s = timed(http, "GET", "/healthz")
            time.sleep(max(0.0, frozen_at + FROZEN_S - time.monotonic() - 5.0))
            write, write_s = timed(http, "POST", f"{album.path}/cancel")
            ready, _ = timed(http, "GET", "/readyz")
        finally:
            os.kill(pid, signal.SIGCONT)
        thawed_at = time.monotonic()
        assert (read.status_code, write.status_code, healthz.status_code) == (503, 503, 200)
        assert read.headers["Retry-After"]
        assert max(read_s, write_s) < ANSWER_WITHIN_S
        assert healthz_s < 1.0
        assert (ready.status_code, "store" in ready.json()["components"]) == (503, True)
        # The refused cancel was on its way: it takes effect, once, and the job ends as a whole either way.
        end = follower.end()
        stalled_s = follower.stalled_s(thawed_at)
    assert (end["status"], end["job_id"]) == ("cancelled", job_id)
    assert service.pids("writer") == [pid]
    measured(
        f"SIGSTOP writer for {FROZEN_S:.0f} s",
        read_refused_after_s=read_s,
        write_refused_after_s=write_s,
        healthz_s=healthz_s,
        progress_stalled_s=stalled_s,
    )


def test_a_job_outlives_a_writer_that_is_frozen_for_a_while(album: Album):
    service = album.service
    with watched(service.settings.url, album.dataset_id) as (follower, reader):
        job_id = album.generate()
        follower.start()
        follower.await_processed(album.n_images // 4)
        pid = service.kill("writer", signal.SIGSTOP)
        time.sleep(FROZEN_S)
        os.kill(pid, signal.SIGCONT)
        end = follower.end()
        reader.stop()
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, album.n_images)
    assert album.job(job_id)["attempt"] == 1
    assert reader.slowest_s() < ANSWER_WITHIN_S
    assert reader.codes() <= {200, 503}


def test_readyz_says_that_the_writer_is_away(album: Album):
    service = album.service
    reasons = set()

    def store_is_missed() -> bool:
        service.kill("writer")
        answer = service.http.get("/readyz", timeout=20)
        if answer.status_code == 503:
            reasons.add(answer.json()["components"].get("store", ""))
        return any(reasons)

    until(store_is_missed, 40)
    assert all("writer" in reason for reason in reasons if reason), reasons
    back_s = until(lambda: service.status_of("/readyz") == 200, 40)
    measured("SIGKILL writer under /readyz", ready_again_after_s=back_s)


def test_without_its_weights_a_new_replica_says_so_and_recovers_when_they_are_back(album: Album):
    service = album.service
    weights = service.model / "model.safetensors"
    away = weights.rename(weights.with_name("away"))
    try:
        service.kill("replica")

        def model_is_missed() -> bool:
            answer = service.http.get("/readyz", timeout=40)
            return answer.status_code == 503 and "model_unavailable" in answer.json()["components"].get("model", "")

        until(model_is_missed, 90)
    finally:
        away.rename(weights)
    back_s = until(lambda: service.status_of("/readyz") == 200, 60)
    measured("weights away, then back", ready_again_after_s=back_s)
