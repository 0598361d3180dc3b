"""A writer dies at any of its system calls, or the machine at any of its writes: nothing acknowledged is lost.

One life of a database (`story`) is recorded under strace with the data of every write. A prefix of the record is what
a process leaves that is killed there, for the kernel keeps its writes. What a machine leaves that loses power lacks
some of the writes not yet forced to the disk. Calls are also killed, and failed, for real. `make test` takes samples
of these; `make test-faults` takes them all.
"""

import random
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from tests.unit.store import tracing
from tests.unit.store.disk import Disk
from tests.unit.store.recovery import Crash, end_of, examine, live_without_faults
from tests.unit.store.story import STEPS

pytestmark = pytest.mark.faults

ACKNOWLEDGED = "acknowledged"

one_in = pytest.mark.parametrize("one_in", [128, pytest.param(1, marks=pytest.mark.every, id="every")])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return live_without_faults(tmp_path_factory.mktemp("reference") / "constellate.duckdb")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Where the recorded database lay, and the operations of its life with its acknowledgements between them."""
    if reason := tracing.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("recorded")
    path = folder / "constellate.duckdb"
    operations = tracing.record(path, folder / ACKNOWLEDGED, folder / "log")
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    assert disk.seen[str(path)] == path.read_bytes()  # nothing was missed
    return path, operations


@pytest.fixture(scope="module")
def pool():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        yield pool


def moments(recording):
    """(number, acknowledged steps, disk, operation) before every operation that changes a file, and at the end."""
    path, operations = recording
    disk, acknowledged = Disk(), 0
    for number, operation in enumerate(operations):
        if operation.path == str(path.parent / ACKNOWLEDGED):
            acknowledged += 1
            continue
        yield number, acknowledged, disk, operation
        disk.apply(operation)
    yield len(operations), acknowledged, disk, None


def lay(folder, path, files):
    """Write rebuilt files of the database at `path` into a folder of their own; returns where it lies now."""
    folder.mkdir()
    for name, data in files.items():
        if name.startswith(str(path)):
            (folder / name.rpartition("/")[2]).write_bytes(data)
    return folder / path.name


@one_in
def test_a_process_may_die_at_any_of_its_calls(recording, reference, pool, tmp_path, one_in):
    crashes, next_life, examined = [], 0, min(one_in, 6)
    for number, acknowledged, disk, operation in moments(recording):
        # Forcing changes nothing that survives a process.
        if operation is None or (operation.call != "fdatasync" and number % examined == 0):
            left = lay(tmp_path / str(number), recording[0], disk.seen)
            lives_on = acknowledged >= next_life
            crashes.append(Crash(f"at call {number}", left, acknowledged, lives_on))
            next_life += one_in if lives_on else 0
    steps = set(pool.map(examine, crashes, [reference] * len(crashes), chunksize=4))
    assert len(steps) > len(STEPS) / examined


@one_in
def test_a_machine_may_lose_any_writes_that_it_was_not_asked_to_keep(recording, reference, pool, tmp_path, one_in):
    crashes = []
    for number, acknowledged, disk, operation in moments(recording):
        if operation is None or operation.call != "fdatasync" or number % min(one_in, 3):
            continue
        *earlier, last = disk.waiting
        torn = last._replace(data=last.data[: len(last.data) // 2])
        kept = random.Random(number).sample(disk.waiting, len(disk.waiting) // 2)
        for name, survivors in (("torn", [*earlier, torn]), ("some", kept), ("last", [last])):
            if name == "torn" or len(disk.waiting) > 1:
                left = lay(tmp_path / f"{number} {name}", recording[0], disk.after_power_loss(survivors))
                crashes.append(Crash(f"before force {number}, {name}", left, acknowledged, live_on=False))
    assert len(crashes) > 20
    list(pool.map(examine, crashes, [reference] * len(crashes), chunksize=4))


OTHER_FAULTS = [("write", "EIO"), ("pwrite64", "ENOSPC"), ("unlink", "EIO")]


@one_in
@pytest.mark.parametrize("call", ["fdatasync", "write", "pwrite64", "unlink"])
def test_a_killed_process_has_kept_what_it_acknowledged(recording, reference, pool, tmp_path, call, one_in):
    def kill(number):
        path = tmp_path / str(number) / "data" / "constellate.duckdb"
        told = path.parent.parent / ACKNOWLEDGED
        path.parent.parent.mkdir()
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        return tracing.run(path, told, *inject), Crash(f"{call} {number}", path, len(told.read_text().splitlines()))

    numbers = [*range(1, calls(recording, call) + 1)][::-one_in]
    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(kill, numbers))
    assert {status for status, _ in ended} == {-signal.SIGKILL}
    list(pool.map(examine, [crash for _, crash in ended], [reference] * len(ended)))
    if one_in == 1:
        assert kill(calls(recording, call) + 1)[0] == 0  # there is no further call


@one_in
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("fdatasync", "EIO"),
        ("write", "ENOSPC"),
        *(pytest.param(*fault, marks=pytest.mark.every) for fault in OTHER_FAULTS),
    ],
)
def test_a_call_that_fails_once_costs_nothing(recording, reference, pool, tmp_path, call, error, one_in):
    def fail(number):
        path = tmp_path / str(number) / "data" / "constellate.duckdb"
        path.parent.parent.mkdir()
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={number}"]
        log = path.parent.parent / "log"
        assert tracing.run(path, path.parent.parent / ACKNOWLEDGED, *inject, log=log) == 0, f"{call} {number}"
        assert log.read_text().count("INJECTED") == 1
        return path

    with ThreadPoolExecutor(2) as threads:
        paths = list(threads.map(fail, [*range(1, calls(recording, call) + 1)][::-one_in]))
    assert paths
    assert all(end == reference.end for end in pool.map(end_of, paths))


def calls(recording, call):
    """How often the writer's thread made a call: strace counts by thread. Another one closes the database."""
    path, operations = recording
    threads = [each.thread for each in operations if each.call == call and each.path.startswith(str(path))]
    return max(map(threads.count, set(threads)))
