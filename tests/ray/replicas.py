"""The processes of a deployment's replicas: where they run, and how to stop them for a while."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from ray.util.state import list_actors


def nodes_of(deployment: str) -> dict[int, str]:
    """The process and node of each living replica."""
    replicas = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    return {actor.pid: actor.node_id for actor in replicas if f"{deployment}#" in (actor.name or "")}


@contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """Stop processes while the block runs, which may end them."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
