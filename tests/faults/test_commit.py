"""The writer is killed at each of its writes to the disk between the claim of an import and the job's end.

With every row staged, the claim and the commit are all that is left to do. The job loop is frozen until somebody
watches the database's files, so that no write is missed. How many writes a commit makes is the store's own affair.
"""

import os
import select
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.faults.album import Album
from tests.faults.opened_files import IN_MODIFY, add_watch, file_events, new_inotify
from tests.faults.report import measured
from tests.faults.stock import DIMENSION, register_names, send_vectors
from tests.faults.watching import watched

# `make test` kills the store alone at each of its system calls: tests/unit/store/test_crash_points.py.
pytestmark = [pytest.mark.faults, pytest.mark.every]

N_ROWS = 400
MOST_WRITES = 8
"""There are three or four: those of the claim, the commit and the checkpoint, seen together where they come quickly."""


class KilledAtWrite(threading.Thread):
    """Kills a process with SIGKILL as soon as it has written to a database for the n-th time; see `is_dead`."""

    def __init__(self, database: Path, pid: int, n_writes: int) -> None:
        super().__init__(name="killer", daemon=True)
        self.is_dead = False
        self._names = {database.name, f"{database.name}.wal"}
        self._pid = pid
        self._n_left = n_writes
        self._is_over = threading.Event()
        self._fd = new_inotify()
        add_watch(self._fd, database.parent, IN_MODIFY)

    def run(self) -> None:
        while not self._is_over.is_set():
            if select.select([self._fd], [], [], 0.1)[0]:
                written = [name for _, name in file_events(os.read(self._fd, 1 << 16)) if name in self._names]
                self._n_left -= len(written)
            if self._n_left <= 0:
                os.kill(self._pid, signal.SIGKILL)
                self.is_dead = True
                return

    def stop(self) -> None:
        """Let the process live if it does."""
        self._is_over.set()
        self.join()
        os.close(self._fd)


def commit(album: Album, value: float, n_writes: int) -> tuple[str, bool]:
    """Let an import end whose writer dies at its n-th write; the job, and whether it came so far."""
    service = album.service
    loop = service.kill("JobRunner", signal.SIGSTOP)
    try:
        answer = send_vectors(album, np.full((N_ROWS, DIMENSION), value, np.float32))
        assert answer.status_code == 202, answer.text
        job_id: str = answer.json()["job_id"]
        [pid] = service.pids("writer")
        killer = KilledAtWrite(service.settings.database_path, pid, n_writes)
        killer.start()
    finally:
        os.kill(loop, signal.SIGCONT)
    with watched(service.settings.url, album.dataset_id) as (follower, _):
        end = follower.start().end()
    killer.stop()
    assert (end["status"], end["job_id"], end["processed"]) == ("complete", job_id, N_ROWS)
    return job_id, killer.is_dead


def test_a_set_is_replaced_whole_whichever_write_of_its_commit_the_writer_dies_at(album: Album):
    names = register_names(album.service, "commit", N_ROWS)
    before, _ = commit(names, 0.5, 10**9)
    n_deaths = 0
    for number in range(1, MOST_WRITES + 1):
        with watched(album.service.settings.url, names.dataset_id) as (_, reader):
            after, is_dead = commit(names, float(number), number)
            reader.await_answer()
            reader.stop()
        assert reader.sets() <= {(N_ROWS, before), (N_ROWS, after)}
        assert reader.codes() <= {200, 503}
        stored = names.stored()
        assert stored.keys() == names.vectors.keys()
        assert {float(component) for vector in stored.values() for component in vector} == {float(number)}
        before = after
        n_deaths += is_dead
        if not is_dead:
            break
    assert n_deaths >= 2  # the claim is a write, and the commit is one at least
    measured("SIGKILL writer at each write of a commit", writers_lost=n_deaths)
    assert names.service.http.delete(f"/datasets/{names.dataset_id}").status_code in {200, 204}
