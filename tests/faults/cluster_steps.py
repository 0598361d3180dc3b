"""Steps that need a place inside the service's cluster: `python -m tests.faults.cluster_steps STEP`.

Each joins the cluster of `RAY_ADDRESS` as a driver of its own, as `serve deploy` does, and prints one line of JSON.
"""

import json
import logging
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import ray

from deployments import writer
from serve_app import main
from serve_app.config import Settings
from tests.faults.wait import PATIENCE_S

OLDER = "older code"


def older_writer(settings: Settings) -> dict[str, Any]:
    """Put a writer in place that says it runs older code; the service's own parts race to start theirs."""
    with patch.object(writer, "code_version", lambda: OLDER):
        for _ in range(20):
            writer.hand_over(settings)
            if (state := whoami(settings))["version"] == OLDER:
                return state
    raise RuntimeError("the service's writer always came first")


def redeploy(settings: Settings) -> dict[str, Any]:
    """Deploy the applications again: new replicas take over, and the new JobRunner asks for a hand-over."""
    began = time.monotonic()
    main.deploy(settings)
    return {"seconds": time.monotonic() - began, **whoami(settings)}


def leave_for_good(_: Settings) -> dict[str, Any]:
    """Start a second writer of another name and let it leave; what Ray does in the seconds after."""
    with TemporaryDirectory() as folder, patch.object(writer, "NAME", "writer-that-leaves"):
        settings = Settings.from_environment({}, data_dir=Path(folder))
        pid = whoami(settings)["pid"]
        ended = writer.end()
        time.sleep(4)
        try:
            ray.get_actor(writer.NAME, namespace=writer.NAMESPACE)
            is_back = True
        except ValueError:
            is_back = False
    return {"pid": pid, "ended": ended, "is_back": is_back}


def whoami(settings: Settings) -> dict[str, Any]:
    """The writer's process and version."""
    actor: Any = writer.find_or_start(settings)
    state: dict[str, Any] = ray.get(actor.whoami.remote(), timeout=PATIENCE_S)
    return state


def run(step: str) -> None:
    """Join, take the step, print what came of it."""
    settings = Settings.from_environment(os.environ)
    ray.init(namespace=writer.NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    try:
        print(json.dumps({function.__name__: function for function in STEPS}[step](settings)))
    finally:
        ray.shutdown()


STEPS = (older_writer, redeploy, leave_for_good, whoami)

if __name__ == "__main__":
    run(sys.argv[1])
