"""Fits in a child process: cancelled, killed, and ended with their parent. The fits are fakes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from serve_app.errors import Conflict, InvalidRequest, WorkerCrashed
from serve_app.projection.fit_process import FitProcess, fit_set, place_in_set
from serve_app.projection.reduction import Projection

PATIENCE_S = 60
PARENT = """
import asyncio
from pathlib import Path
from tests.unit.projection.test_fit_process import Projection, endless_process

if __name__ == "__main__":
    asyncio.run(endless_process().fit(Path("endless"), Projection(), lambda *report: print(report[1], flush=True)))
"""


def fit(folder, projection, on_progress):
    """Report the process's own id as progress; then end, refuse or never end, as the folder's name says."""
    on_progress("layout", os.getpid(), 500)
    while folder.name == "endless":
        pass
    if folder.name == "refused":
        raise InvalidRequest("some vectors are not finite")
    if folder.name == "broken":
        raise ZeroDivisionError("a bug")
    return np.full((2, 2), os.getpid(), np.float64)


def place(folder, projection, kept, on_progress):
    """As `fit`, but what is kept is moved one to the right."""
    fit(folder, projection, on_progress)
    return np.add(kept, [1, 0])


def warm():
    """Compile nothing."""


def endless_process():
    return FitProcess(fit, warm)


class Pids:
    """Keeps the process ids that fits report; `seen` is set by each."""

    def __init__(self):
        self._loop, self.seen, self.pids = asyncio.get_running_loop(), asyncio.Event(), []

    def __call__(self, phase, done, total):
        self.pids.append(done)
        self._loop.call_soon_threadsafe(self.seen.set)


async def begun(process):
    """An endless fit that has begun, and its process."""
    pids = Pids()
    task = asyncio.create_task(process.fit(Path("endless"), Projection(), pids))
    await asyncio.wait_for(pids.seen.wait(), PATIENCE_S)
    return task, psutil.Process(pids.pids[0])


async def ended(process: psutil.Process) -> None:
    await asyncio.to_thread(psutil.wait_procs, [process], PATIENCE_S)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_a_cancelled_fit_ends_and_the_next_one_does_not_wait_for_it():
    """It went on in its thread, and the next map waited until it was done."""
    process = FitProcess(fit, warm)
    task, child = await begun(process)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    points = await asyncio.wait_for(process.fit(Path("next"), Projection(), Pids()), PATIENCE_S)
    assert points[0, 0] != child.pid
    await ended(child)


async def test_a_fit_that_is_cancelled_in_the_queue_leaves_the_running_one_alone():
    process = FitProcess(fit, warm)
    running, child = await begun(process)
    waiting = asyncio.create_task(process.fit(Path("next"), Projection(), Pids()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert child.is_running()
    assert not running.done()
    running.cancel()
    await ended(child)


async def test_a_killed_process_is_reported_and_the_next_fit_has_another():
    process = FitProcess(fit, warm)
    task, child = await begun(process)
    child.send_signal(signal.SIGKILL)
    with pytest.raises(WorkerCrashed):
        await asyncio.wait_for(task, PATIENCE_S)
    assert (await process.fit(Path("next"), Projection(), Pids())).shape == (2, 2)


async def test_one_process_serves_fit_after_fit_also_after_errors():
    process = FitProcess(fit, warm)
    await process.warm()
    first = await process.fit(Path("first"), Projection(), Pids())
    with pytest.raises(InvalidRequest, match="not finite"):
        await process.fit(Path("refused"), Projection(), Pids())
    with pytest.raises(ZeroDivisionError):
        await process.fit(Path("broken"), Projection(), Pids())
    assert np.array_equal(await process.fit(Path("again"), Projection(), Pids()), first)


async def test_placing_waits_for_its_turn_and_a_cancelled_one_ends_its_process_as_a_fit_does():
    process, pids, kept = FitProcess(fit, warm, place=place), Pids(), np.zeros((3, 2))
    placing = asyncio.create_task(process.place(Path("endless"), Projection(), kept, pids))
    await asyncio.wait_for(pids.seen.wait(), PATIENCE_S)
    waiting = asyncio.create_task(process.place(Path("next"), Projection(), kept, Pids()))
    await asyncio.sleep(0)
    placing.cancel()
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).tolist() == [[1, 0]] * 3
    await ended(psutil.Process(pids.pids[0]))


async def test_a_fit_ends_with_the_process_that_asked_for_it(tmp_path):
    """Otherwise a killed reducer would leave a fit that computes for nobody."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(root)}
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    await ended(child)


def test_vectors_that_were_replaced_before_the_fit_began_are_a_conflict(tmp_path):
    with pytest.raises(Conflict):
        fit_set(tmp_path / "gone", Projection(), lambda phase, done, total: None)
    with pytest.raises(Conflict):
        place_in_set(tmp_path / "gone", Projection(), np.zeros((3, 2)), lambda phase, done, total: None)
