"""New code is deployed while a job runs: the writer changes hands, the job and its streams go on."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from deployments.writer import code_version
from serve_app.service_record import ServiceRecord
from tests.faults.album import Album
from tests.faults.cluster_steps import OLDER
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.service import REPOSITORY, Service
from tests.faults.wait import PATIENCE_S, until
from tests.faults.watching import watched
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.faults


def in_the_cluster(service: Service, step: str) -> dict[str, Any]:
    """Take a step of `cluster_steps` as another driver of the service's cluster."""
    record = ServiceRecord.read(service.settings.data_dir)
    assert record is not None
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.cluster_steps", step],
        cwd=REPOSITORY,
        env=service.environment(service.settings) | {"RAY_ADDRESS": record.ray_address, "RAY_AUTH_MODE": "token"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.every
def test_a_redeploy_in_a_job_hands_the_writer_over_and_the_job_goes_on(album: Album):
    service = album.service
    older = in_the_cluster(service, "older_writer")
    assert older["version"] == OLDER
    large = Album.register(service, make_folder(service.roots / "handed-over", n_images=128, seed=16))
    with OpenedFiles(large.root) as opened, watched(service.settings.url, large.dataset_id) as (follower, reader):
        job_id = large.generate()
        follower.start()
        follower.await_processed(large.n_images // 5)
        assert service.pids("writer") == [older["pid"]]
        began = time.monotonic()
        newer = in_the_cluster(service, "redeploy")
        end = follower.end()
        counts = opened.counts()
        reader.await_answer()
        reader.stop()
    assert newer["version"] == code_version()
    assert newer["pid"] != older["pid"]
    until(lambda: not is_alive(older["pid"]))
    assert service.pids("writer") == [newer["pid"]]
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, large.n_images)
    assert reader.codes() <= {200, 503}
    measured(
        "redeploy with hand-over in a job",
        deployed_after_s=newer["seconds"],
        api_back_after_s=reader.outage_s(began),
        images_again=sum(counts.values()) - large.n_images,
        stream_connections=follower.n_connections,
    )


@pytest.mark.every
def test_a_writer_that_leaves_is_not_started_again_by_ray(album: Album):
    left = in_the_cluster(album.service, "leave_for_good")
    assert (left["ended"], left["is_back"], is_alive(left["pid"])) == (True, False, False)
