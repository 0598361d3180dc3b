"""What the template of the workers imports, so that its forks need not.

A fork has only what its parent's memory holds, and Ray's parent must not have drawn an identifier yet: all forks would
draw the same ones. The template tries that before it forks its first worker.
"""

import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

MODULES = (
    "ray.serve._private.controller",
    "ray.serve._private.proxy",
    "ray.serve._private.replica",
    "deployments.ingress",
    "deployments.job_runner",
    "deployments.searcher",
    "deployments.reducer",
    "deployments.embedder",
    "deployments.writer",
    "serve_app.api",
)
"""What workers import. DuckDB and OpenVINO are not among them: each is used by one kind of worker, and has threads."""

LIBRARIES = ("fastapi", "grpc", "opentelemetry.sdk.metrics", "pandas", "pyarrow.compute", "uvicorn")
"""What these import in turn and is none of Ray's: it is imported while Ray starts, before there is a worker."""

JOB_ID = "RAY_JOB_ID"
NO_JOB = "ffffffff"
"""Ray's core reads the job once, at import. Without one a fork is like a worker that the raylet started in advance."""


def load(environment: dict[str, str]) -> None:
    """Import what workers need, with their variables: libraries read many when they are imported.

    Raises:
        RuntimeError: forks of this process would draw the same identifiers.
    """
    os.environ.clear()
    os.environ.update(environment | {JOB_ID: NO_JOB})
    with _class_ids_of_the_system():
        for name in MODULES:
            importlib.import_module(name)
    if drawn_in_a_fork() == drawn_in_a_fork():
        raise RuntimeError("an import draws Ray's identifiers; workers start without a template")
    importlib.import_module("deployments.writer").code_version()  # a fork says what it has, not what is on disk by then
    gc.collect()
    gc.freeze()  # the collector of a fork would write to every page


@contextmanager
def _class_ids_of_the_system() -> Iterator[None]:
    """Give actor classes that are made by an import an id that is not drawn from Ray's generator."""
    import ray.actor
    from ray._raylet import ActorClassID

    class Drawn:
        @staticmethod
        def from_random() -> ActorClassID:
            return ActorClassID(os.urandom(ActorClassID.size()))

    ray.actor.ActorClassID = Drawn  # type: ignore[attr-defined, assignment]
    try:
        yield
    finally:
        ray.actor.ActorClassID = ActorClassID  # type: ignore[attr-defined]


def drawn_in_a_fork() -> bytes:
    """The first identifier that Ray draws in a fork of this process."""
    from ray._raylet import UniqueID

    reader, writer = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            os.write(writer, UniqueID.from_random().binary())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        drawn = pipe.read()
    os.waitpid(fork, 0)
    return drawn
