"""A replica whose device computes no more, on a real cluster: Serve asks `check_health`, and starts another process."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from ray import cloudpickle, serve

from deployments.cluster import choose_policy
from deployments.embedder import DinoV2
from deployments.handles import ask
from serve_app.errors import Unavailable
from serve_app.images.decode import Preprocessing
from serve_app.policy import Policy
from serve_app.records import ModelCard, VectorArray
from tests.faults.wait import PATIENCE_S
from tests.ray.conftest import Service
from tests.ray.photographs import make_photograph

# A replica more than the machine has cores for: `make test-faults`.
pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.every]

NAME = "sticky"


class Sticky:
    """A model whose vectors hold its process, and whose device breaks for good where a file lies."""

    card = ModelCard(name=NAME, dimension=1, space_key=NAME, device="cpu", precision="fp32")
    preprocessing = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, breaks: Path) -> None:
        self._breaks = breaks
        self._is_broken = False

    def vectors(self, images: np.ndarray) -> VectorArray:
        self._is_broken |= self._breaks.exists()
        if self._is_broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return np.full((len(images), 1), os.getpid(), np.float32)


async def test_serve_replaces_a_replica_in_a_sticky_error(service: Service, tmp_path: Path):
    breaks = tmp_path / "breaks"
    photograph = make_photograph(tmp_path / "a.png", 1).read_bytes()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    policy: Policy = choose_policy(service.settings)
    deployment = serve.deployment(
        name="Sticky", health_check_period_s=0.5, graceful_shutdown_wait_loop_s=0.1, ray_actor_options={"num_cpus": 0}
    )(DinoV2)
    target = deployment.bind(service.settings, NAME, policy, lambda settings, name, policy: Sticky(breaks))
    handle = serve.run(target, name=NAME, route_prefix=None)

    async def process() -> int:
        embedded = await ask(handle, "embed_images", [photograph], who=NAME, timeout_s=PATIENCE_S)
        return int(embedded.outcomes[0][0])

    try:
        before = await process()
        breaks.touch()
        with pytest.raises(Unavailable):
            await process()
        breaks.unlink()  # the device of another process works
        after = before
        while after == before:
            try:
                after = await process()
            except Unavailable:
                continue
    finally:
        serve.delete(NAME)
    assert after != before
