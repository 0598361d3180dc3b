"""Which error of ours each error of Ray's becomes, and that ours cross a process as they are."""

import asyncio
import inspect

import pytest
from ray import exceptions as of_ray
from ray.serve import exceptions as of_serve

from deployments import handles, writer
from deployments.handles import WriterHandle, ask, service_errors
from serve_app.errors import Overloaded, ServiceError, StoreUnavailable, Unavailable, WorkerCrashed
from serve_app.store.datasets import Datasets
from serve_app.store.imports import Imports
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors
from tests.unit.error_tree import every_error

BECOMES = {
    WorkerCrashed: "ActorDiedError ActorUnavailableError NodeDiedError OutOfMemoryError RayActorError "
    "WorkerCrashedError",
    Overloaded: "BackPressureError PendingCallsLimitExceeded",
    # What is lost or freed was the answer: its process went on, and no image is to blame.
    Unavailable: "ObjectFetchTimedOutError ObjectFreedError ObjectLostError ObjectReconstructionFailedError "
    "OwnerDiedError PlasmaObjectNotAvailable ReferenceCountingAssertionError "
    # Nothing was begun, or nobody waits for it any more.
    "ActorPlacementGroupRemoved ActorUnschedulableError DeploymentUnavailableError ReplicaUnavailableError "
    "RequestCancelledError RuntimeEnvSetupError TaskCancelledError TaskPlacementGroupRemoved TaskUnschedulableError "
    # Something else is wrong with the cluster.
    "AuthenticationError GetTimeoutError LocalRayletDiedError ObjectStoreFullError OutOfDiskError RayError "
    "RayServeException RaySystemError RpcError "
    # Of what is not used here: compiled graphs, generators, other languages, gRPC, names of actors.
    "ActorAlreadyExistsError ActorHandleNotFoundError AsyncioActorExit CrossLanguageError gRPCStatusError "
    "ObjectRefStreamEndOfStreamError OufOfBandObjectRefSerializationException RayCgraphCapacityExceeded "
    "RayChannelError RayChannelTimeoutError RayDirectTransportError StreamingGeneratorReplayInconsistentError "
    "UserCodeException",
}
OURS = {name: ours for ours, names in BECOMES.items() for name in names.split()}
RAISED_THERE = {"RayTaskError", "UnserializableException"}
"""They carry an error of the code that was called."""


def public_errors(module):
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == module.__name__
    }


RAYS = public_errors(of_ray) | public_errors(of_serve)


def one(name):
    """An error of Ray's; without its constructor, whose arguments are as many as there are errors."""
    return RAYS[name].__new__(RAYS[name])


class Handle:
    """A handle whose every call ends as it is told: with an exception, or an answer."""

    def __init__(self, end):
        self.end = end

    def __getattr__(self, name):
        return self

    def remote(self, *args):
        return asyncio.ensure_future(self._answer())

    async def _answer(self):
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


class Hanging(Handle):
    """A handle whose call never ends; `begun` is set when it runs."""

    def __init__(self):
        self.begun, self.is_cancelled = asyncio.Event(), False

    def remote(self, *args):
        return self

    def __await__(self):
        self.begun.set()
        return asyncio.Event().wait().__await__()

    def cancel(self):
        """What Serve's response has: nothing else ends the call in the replica."""
        self.is_cancelled = True


def ask_one(handle, timeout_s=60.0):
    return ask(handle, "embed_images", [], who="the embedder", timeout_s=timeout_s)


class Cluster:
    """Where the writer is found; `actor` is who has its name, `n_found` how often it was looked for."""

    def __init__(self):
        self.actor = Handle("an answer")
        self.n_found = 0

    def find_or_start(self, settings):
        self.n_found += 1
        return self.actor


@pytest.fixture
def cluster(monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr(writer, "find_or_start", cluster.find_or_start)
    return cluster


def raised_in_a_task(cause):
    """What a caller gets of an exception raised in another process: serialized and read by Ray's own code."""
    task_error = of_ray.RayTaskError("embed", f"Traceback: {cause}", cause, proctitle="replica", pid=1, ip="127.0.0.1")
    received = of_ray.RayError.from_bytes(task_error.to_bytes())
    return received.as_instanceof_cause() if isinstance(received, of_ray.RayTaskError) else received


def test_every_error_of_ray_has_been_thought_about():
    """A new one of a new Ray belongs into `BECOMES`."""
    assert set(OURS) | RAISED_THERE == set(RAYS)


@pytest.mark.parametrize("name", sorted(OURS))
async def test_an_error_of_ray_becomes_one_of_ours(name):
    with pytest.raises(ServiceError, match="the embedder") as caught:
        async with service_errors("the embedder"):
            raise one(name)
    assert type(caught.value) is OURS[name]
    with pytest.raises(OURS[name]) as asked:
        await ask_one(Handle(one(name)))
    assert type(asked.value) is OURS[name]


@pytest.mark.parametrize("name", sorted(OURS))
async def test_to_callers_of_the_writer_every_error_of_ray_is_an_unavailable_store(cluster, settings, name):
    handle = WriterHandle(settings)
    cluster.actor = Handle(one(name))
    with pytest.raises(StoreUnavailable, match="the writer"):
        await handle.ask(Datasets.all)
    cluster.actor = Handle("an answer")
    assert await handle.ask(Datasets.all) == "an answer"
    assert cluster.n_found == 2  # the next one is looked for


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
async def test_a_service_error_crosses_a_process_as_it_is(cluster, settings, error):
    cause = error("why: because")
    raised = raised_in_a_task(cause)
    handle = WriterHandle(settings)
    cluster.actor = Handle(raised)
    for call in (ask_one(Handle(raised)), ask_one(Handle(cause)), handle.ask(Datasets.all), handle.ask(Datasets.all)):
        with pytest.raises(ServiceError) as caught:
            await call
        assert type(caught.value) is error
        assert (caught.value.args, caught.value.detail) == (cause.args, cause.detail)
    assert cluster.n_found == 1  # the writer is there: it has answered


@pytest.mark.parametrize(
    "cause",
    [of_ray.ActorDiedError(), of_serve.BackPressureError(1, 1), of_ray.GetTimeoutError("slow")],
    ids=lambda cause: type(cause).__name__,
)
async def test_an_error_of_ray_in_the_process_that_was_asked_is_no_crash_of_that_process(cause):
    with pytest.raises(Unavailable, match="its own helper") as caught:
        await ask_one(Handle(raised_in_a_task(cause)))
    assert type(caught.value) is Unavailable


async def test_a_fault_in_the_code_that_was_called_is_raised_as_it_is(cluster, settings):
    cluster.actor = Handle(raised_in_a_task(KeyError("a fault")))
    for call in (ask_one(cluster.actor), WriterHandle(settings).ask(Datasets.all)):
        with pytest.raises(KeyError, match="a fault"):
            await call


@pytest.mark.parametrize("method", [Jobs.begin, Imports.begin, Vectors.commit], ids=lambda method: method.__qualname__)
async def test_a_method_that_wipes_or_moves_many_rows_gets_more_time(cluster, settings, monkeypatch, method):
    monkeypatch.setattr(handles, "STORE_TIMEOUT_S", 0.0)
    with pytest.raises(StoreUnavailable, match="in time"):
        await WriterHandle(settings).ask(Datasets.all)
    assert await WriterHandle(settings).ask(method) == "an answer"


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("it holds a lock")


class Unreadable(Exception):
    def __init__(self, *, reason):
        super().__init__(reason)


@pytest.mark.parametrize(
    "fault", [Unpicklable("a fault"), Unreadable(reason="a fault")], ids=lambda e: type(e).__name__
)
async def test_a_fault_that_cannot_cross_processes_is_not_taken_for_one_of_ray(cluster, settings, fault):
    """Ray then has an error of its own that quotes it."""
    cluster.actor = Handle(raised_in_a_task(fault))
    for call in (ask_one(cluster.actor), WriterHandle(settings).ask(Datasets.all)):
        with pytest.raises(of_ray.RayError, match="a fault"):
            await call


async def test_an_answer_that_does_not_come_in_time_is_unavailable():
    handle = Hanging()
    with pytest.raises(Unavailable, match="in time") as caught:
        await ask_one(handle, timeout_s=0.0)
    assert type(caught.value) is Unavailable
    assert handle.is_cancelled


@pytest.mark.parametrize("timeout_s", [60.0, None])
async def test_a_call_that_was_cancelled_over_there_is_unavailable(timeout_s):
    """Serve raises asyncio's own error for it, as if whoever asked had been cancelled."""
    with pytest.raises(Unavailable, match="cancelled"):
        await ask_one(Handle(asyncio.CancelledError()), timeout_s)


@pytest.mark.parametrize("timeout_s", [60.0, None])
async def test_who_is_cancelled_while_asking_stays_cancelled_and_so_is_the_call(timeout_s):
    """The replica went on: Serve cancels a call by itself only while it looks for a replica."""
    handle = Hanging()
    asking = asyncio.create_task(ask_one(handle, timeout_s))
    await handle.begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert handle.is_cancelled
