import asyncio

import numpy as np
import pytest

from serve_app.config import Settings
from serve_app.embedding import fan_out
from serve_app.embedding.fan_out import FanOut, spread
from serve_app.errors import Overloaded, Saturated, ServiceError, TooLarge, Unavailable, WorkerCrashed
from serve_app.policy import Policy
from serve_app.services import Services
from tests.fakes import FakeEmbedder, FakeModel


class Replicas:
    """Answers each item with itself, after a turn of the loop; remembers what was under way together."""

    def __init__(self):
        self.chunks = []
        self.n_under_way = 0
        self.most_under_way = 0
        self.faults = {}

    async def embed(self, chunk):
        self.chunks.append(list(chunk))
        self.n_under_way += 1
        self.most_under_way = max(self.most_under_way, self.n_under_way)
        try:
            await asyncio.sleep(0)
            faults = self.faults.get(chunk[0], [])
            if faults:
                raise faults.pop(0)
            return list(chunk)
        finally:
            self.n_under_way -= 1


@pytest.fixture
def replicas():
    return Replicas()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(fan_out, "FIRST_PAUSE_S", 0)


@pytest.mark.parametrize("n_images", [0, 1, 3, 4, 5, 100])
@pytest.mark.parametrize("window", [1, 3, 50])
async def test_every_image_is_embedded_once_and_answered_in_order(replicas, n_images, window):
    images = list(range(n_images))
    parts = await spread(replicas.embed, images, chunk_images=4, window=window)
    assert [image for part in parts for image in part] == images
    assert sorted(i for chunk in replicas.chunks for i in chunk) == images
    assert all(len(chunk) <= 4 for chunk in replicas.chunks)


async def test_the_window_is_filled_and_never_exceeded(replicas):
    await spread(replicas.embed, list(range(100)), chunk_images=4, window=6)
    assert replicas.most_under_way == 6


@pytest.mark.parametrize("fault", [WorkerCrashed, Overloaded])
async def test_a_chunk_whose_replica_dies_or_is_full_is_sent_again(replicas, fault):
    replicas.faults = {4: [fault("gone"), fault("gone")]}
    parts = await spread(replicas.embed, list(range(12)), chunk_images=4, window=2)
    assert parts == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert replicas.chunks.count([4, 5, 6, 7]) == 3


@pytest.mark.parametrize(
    ("faults", "n_calls"), [([WorkerCrashed("gone")] * 3, 3), ([Unavailable("late")], 1)], ids=["crashes", "timeout"]
)
async def test_a_chunk_that_fails_for_good_fails_the_request_and_stops_the_others(replicas, faults, n_calls):
    replicas.faults = {0: list(faults)}
    with pytest.raises(type(faults[0])):
        await spread(replicas.embed, list(range(4000)), chunk_images=4, window=2)
    assert replicas.chunks.count([0, 1, 2, 3]) == n_calls
    n_sent = len(replicas.chunks)
    await asyncio.sleep(0)
    assert replicas.n_under_way == 0
    assert len(replicas.chunks) == n_sent < 100


async def test_leaving_cancels_what_is_under_way(replicas):
    leaving = asyncio.create_task(spread(replicas.embed, list(range(4000)), chunk_images=4, window=2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert replicas.n_under_way == 0


PNG = b"\x89PNG"


@pytest.fixture
def services():
    settings = Settings()
    policy = Policy.choose(settings, n_cpus=2, n_gpus=0)
    return Services(settings, policy, None, FakeEmbedder(), None, None)


@pytest.fixture
def requests(services):
    return FanOut(lambda: services)


async def test_a_small_request_is_shared_by_all_replicas(requests, services):
    assert len((await requests.embed([PNG] * 6)).outcomes) == 6
    assert services.embedder.n_calls == services.policy.max_replicas == 2


async def test_a_request_over_its_bound_is_too_large(requests, services):
    with pytest.raises(TooLarge, match="at most 64 images; this one has 65"):
        await requests.embed([PNG] * (services.policy.request_images + 1))
    assert services.embedder.n_calls == 0


async def test_two_full_requests_are_under_way_and_a_third_is_refused_until_one_is_done(requests, services):
    services.embedder.gate = asyncio.Event()
    full = [PNG] * services.policy.request_images
    first, second = asyncio.create_task(requests.embed(full)), asyncio.create_task(requests.embed(full))
    await asyncio.sleep(0)
    with pytest.raises(Saturated, match="128 images are being embedded here and 128 may be"):
        await requests.embed([PNG])
    second.cancel()
    await asyncio.wait({second})
    third = asyncio.create_task(requests.embed([PNG]))
    services.embedder.gate.set()
    assert len((await first).outcomes) == 64
    assert len((await third).outcomes) == 1


async def test_a_failed_request_frees_its_place(requests, services):
    services.embedder.fault = Unavailable("away")
    for _ in range(5):
        with pytest.raises(Unavailable):
            await requests.embed([PNG] * services.policy.request_images)
    services.embedder.fault = None
    assert len((await requests.embed([PNG])).outcomes) == 1


async def test_vectors_of_two_spaces_are_never_in_one_answer(requests, services):
    embed = services.embedder.embed

    async def replaced_after_one(model, images):
        embedded = await embed(model, images)
        services.embedder.model = FakeModel(space_key="another")
        return embedded

    services.embedder.embed = replaced_after_one
    with pytest.raises(Unavailable, match="replaced while it embedded"):
        await requests.embed([PNG] * 6)
    assert (await requests.embed([PNG] * 6)).card.space_key == "another"


async def test_a_vector_that_is_not_finite_never_leaves(requests, services):
    services.embedder.model.vector = lambda image: np.array([0, np.nan], np.float32)
    with pytest.raises(ServiceError, match="not finite"):
        await requests.embed([PNG])
