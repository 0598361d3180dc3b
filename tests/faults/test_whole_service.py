"""The whole service ends, one way or another, in the middle of a job; the next start carries the job on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from tests.faults.album import Album
from tests.faults.opened_files import OpenedFiles
from tests.faults.report import measured
from tests.faults.service import REPOSITORY, Service
from tests.faults.wait import PATIENCE_S, until
from tests.faults.watching import watched
from tests.invariants import check_invariants
from tests.ports import free_port
from tests.ray.photographs import make_folder

pytestmark = pytest.mark.faults

AGENTS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Ray's agents take about a minute to give up on their dead cluster; they hold neither port nor file of ours."""


def copy_of_database(service: Service, folder: Path) -> Path:
    """The file and its log as they lie there: opening the original would fold the log into it."""
    original = service.settings.database_path
    for name in (original.name, f"{original.name}.wal"):
        if (original.parent / name).exists():
            shutil.copy(original.parent / name, folder / name)
    return folder / original.name


def staged_samples(database: Path, job_id: str) -> set[str]:
    with duckdb.connect(str(database)) as connection:
        rows = connection.execute("SELECT sample_id FROM vectors_768 WHERE job_id = ?", [job_id]).fetchall()
    return {sample_id for (sample_id,) in rows}


@pytest.mark.parametrize("n_killed_starts", [0, pytest.param(1, marks=pytest.mark.every)])
def test_after_every_process_is_killed_the_job_resumes_by_itself(album: Album, tmp_path: Path, n_killed_starts: int):
    service = album.service
    before = album.status()["job_id"]
    with watched(service.settings.url, album.dataset_id) as (follower, reader):
        with OpenedFiles(album.root) as opened:
            job_id = album.generate()
            follower.start()
            with album.half_way(opened, follower):
                n_killed = service.kill_all()
        acknowledged = follower.processed

        copy = copy_of_database(service, tmp_path)
        check_invariants(copy)
        staged = staged_samples(copy, job_id)
        assert len(staged) >= acknowledged

        died_at = time.monotonic()
        with OpenedFiles(album.root) as opened:
            for _ in range(n_killed_starts):
                start_and_kill_the_main_process(service)
            ready_s = service.start()
            end = follower.end()
            counts = opened.counts()
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, album.n_images)
    assert album.job(job_id)["attempt"] >= 2
    assert set(counts).isdisjoint(staged)
    # A start that is killed may have begun with some of them.
    again = sum(counts.values()) - (album.n_images - len(staged))
    assert 0 <= again <= n_killed_starts * service.in_flight
    assert reader.sets() <= {(album.n_images, before), (album.n_images, job_id)}
    measured(
        f"SIGKILL of all {n_killed} processes, and of `constellate serve` alone in {n_killed_starts} starts",
        acknowledged=acknowledged,
        staged=len(staged),
        images_again=again,
        ready_after_s=ready_s,
        progress_stalled_s=follower.stalled_s(died_at),
    )


def await_port(service: Service) -> None:
    """Wait until the proxy of a service that is starting listens."""
    until(lambda: service.pids("proxy"))
    until(service.is_listening)


def start_and_kill_the_main_process(service: Service) -> None:
    """Start, and when the port is taken end the main process alone: the kernel ends the others with it."""
    service.launch()
    await_port(service)
    before = service.processes()
    os.kill(service.pid, signal.SIGKILL)
    until(lambda: not service.is_up)
    until(lambda: {process.title for process in before if process.is_alive()} <= AGENTS)


@pytest.mark.every
def test_a_service_whose_ray_died_ends_by_itself_and_resumes(album: Album):
    service = album.service
    with watched(service.settings.url, album.dataset_id) as (follower, _):
        job_id = album.generate()
        follower.start()
        follower.await_processed(album.n_images // 3)
        without_raylet_s = end_of_service_without(service, "raylet", exit_code=3)
        service.launch()
        await_port(service)
        # Without its control store Ray itself ends the process that runs it, and with 1.
        without_gcs_s = end_of_service_without(service, "gcs", exit_code=1)
        service.start()
        end = follower.end()
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, album.n_images)
    measured("SIGKILL raylet", service_ended_after_s=without_raylet_s)
    measured("SIGKILL gcs", service_ended_after_s=without_gcs_s)


def end_of_service_without(service: Service, part: str, *, exit_code: int) -> float:
    """Kill a part of Ray; the seconds until the service has ended, leaving nothing that holds anything of ours."""
    service.kill(part)
    ended_s = until(lambda: not service.is_up)
    assert service.exit_code == exit_code
    until(lambda: {process.title for process in service.processes()} <= AGENTS)
    return ended_s


def test_a_second_service_on_the_same_data_is_refused_and_names_the_first(album: Album):
    service = album.service
    settings = service.settings.model_copy(update={"port": free_port()})
    second = subprocess.run(
        [sys.executable, "-m", "serve_app.cli", "serve"],
        cwd=REPOSITORY,
        env=service.environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert second.returncode == 3, second.stderr
    assert f"pid {service.pid}" in second.stderr
    assert service.status_of("/readyz") == 200


def test_a_stopped_service_leaves_nothing_behind_and_can_resume(album: Album):
    """The last of all fault tests: the job that it leaves half done is what the others have shown to resume."""
    service = album.service
    database = service.settings.database_path
    large = Album.register(service, make_folder(service.roots / "stopped", n_images=400, seed=11))
    with watched(service.settings.url, large.dataset_id) as (follower, _):
        job_id = large.generate()
        follower.start()
        follower.await_processed(16)
        acknowledged = follower.processed
        stop_s = service.stop(signal.SIGTERM)
    assert service.exit_code == 0
    gone_s = until(lambda: not service.processes(), lambda: str(service.processes()))
    assert not database.with_name(f"{database.name}.wal").exists()
    check_invariants(database)
    assert acknowledged <= len(staged_samples(database, job_id)) < large.n_images
    measured("SIGTERM in a job", stopped_after_s=stop_s, last_process_gone_after_s=gone_s)
