"""Parts that hang or lack something: callers get a reason within seconds, and nothing is done twice."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from deployments.handles import STORE_TIMEOUT_S
from tests.faults.album import Album
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.wait import until
from tests.faults.watching import watched

pytestmark = pytest.mark.faults

FROZEN_S = STORE_TIMEOUT_S + 1.0


def timed(http: httpx.Client, method: str, path: str) -> tuple[httpx.Response, float]:
    began = time.monotonic()
    answer = http.request(method, path)
    return answer, time.monotonic() - began


def test_while_the_writer_is_frozen_every_call_is_refused_in_time_and_nothing_is_lost(album: Album):
    service, http = album.service, album.service.http
    with OpenedFiles(album.root) as opened, watched(service.settings.url, album.dataset_id) as (follower, _):
        job_id = album.generate()
        follower.start()
        with album.half_way(opened, follower):
            pid = service.kill("writer", signal.SIGSTOP)
        try:
            with ThreadPoolExecutor() as callers:
                asked = callers.submit(timed, http, "GET", "/jobs")
                told = callers.submit(timed, http, "POST", f"{album.path}/cancel")
                healthz, healthz_s = timed(http, "GET", "/healthz")
                until(lambda: "store" in http.get("/readyz").json().get("components", {}))
                (read, read_s), (write, write_s) = asked.result(), told.result()
        finally:
            os.kill(pid, signal.SIGCONT)
        thawed_at = time.monotonic()
        assert (read.status_code, write.status_code, healthz.status_code) == (503, 503, 200)
        assert read.headers["Retry-After"]
        # Those that need the writer waited for it as long as a store call may; what needs none did not.
        assert min(read_s, write_s) >= STORE_TIMEOUT_S
        assert healthz_s < min(read_s, write_s)
        # The refused cancel was on its way: it takes effect, once, and the job ends as a whole either way.
        end = follower.end()
        stalled_s = follower.stalled_s(thawed_at)
    assert (end["status"], end["job_id"]) == ("cancelled", job_id)
    assert service.pids("writer") == [pid]
    measured(
        "SIGSTOP writer while it is asked",
        read_refused_after_s=read_s,
        write_refused_after_s=write_s,
        healthz_s=healthz_s,
        progress_stalled_s=stalled_s,
    )


@pytest.mark.every
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
    assert reader.codes() <= {200, 503}


@pytest.mark.every
def test_readyz_says_that_the_writer_is_away(album: Album):
    service = album.service
    reasons = set()

    def store_is_missed() -> bool:
        service.kill("writer")
        answer = service.http.get("/readyz")
        if answer.status_code == 503:
            reasons.add(answer.json()["components"].get("store", ""))
        return any(reasons)

    until(store_is_missed)
    assert all("writer" in reason for reason in reasons if reason), reasons
    back_s = until(lambda: service.status_of("/readyz") == 200)
    measured("SIGKILL writer under /readyz", ready_again_after_s=back_s)


@pytest.mark.every
def test_without_its_weights_a_new_replica_says_so_and_recovers_when_they_are_back(album: Album):
    service = album.service
    weights = service.model / "model.safetensors"
    away = weights.rename(weights.with_name("away"))
    try:
        service.kill("replica")

        def model_is_missed() -> bool:
            answer = service.http.get("/readyz")
            return answer.status_code == 503 and "model_unavailable" in answer.json()["components"].get("model", "")

        until(model_is_missed)
    finally:
        away.rename(weights)
    back_s = until(lambda: service.status_of("/readyz") == 200)
    measured("weights away, then back", ready_again_after_s=back_s)
