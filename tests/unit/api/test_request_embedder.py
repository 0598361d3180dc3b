"""What requests may ask of the replicas, and what becomes of a chunk whose replica dies."""

import asyncio

import numpy as np
import pytest

from serve_app.api.request_embedder import RequestEmbedder
from serve_app.config import Settings
from serve_app.errors import Overloaded, Saturated, ServiceError, TooLarge, Unavailable, WorkerCrashed
from serve_app.policy import Policy
from serve_app.services import Services
from tests.fakes import FakeEmbedder, FakeModel

PNG = b"\x89PNG"


@pytest.fixture
def services():
    settings = Settings()
    policy = Policy.choose(settings, n_cpus=2, n_gpus=0)
    return Services(settings, policy, None, FakeEmbedder(), None, None)


@pytest.fixture
def requests(services):
    return RequestEmbedder(lambda: services)


async def test_a_small_request_is_shared_by_all_replicas(requests, services):
    assert len((await requests.embed_uploads([PNG] * 6)).outcomes) == 6
    assert services.embedder.n_calls == services.policy.max_replicas == 2


async def test_a_request_over_its_bound_is_too_large(requests, services):
    with pytest.raises(TooLarge, match="at most 64 images; this one has 65"):
        await requests.embed_uploads([PNG] * (services.policy.request_images + 1))
    assert services.embedder.n_calls == 0


async def test_two_full_requests_are_under_way_and_a_third_is_refused_until_one_is_done(requests, services):
    services.embedder.gate = asyncio.Event()
    full = [PNG] * services.policy.request_images
    first, second = asyncio.create_task(requests.embed_uploads(full)), asyncio.create_task(requests.embed_uploads(full))
    await asyncio.sleep(0)
    with pytest.raises(Saturated, match="128 images are being embedded here and 128 may be"):
        await requests.embed_uploads([PNG])
    second.cancel()
    await asyncio.wait({second})
    third = asyncio.create_task(requests.embed_uploads([PNG]))
    services.embedder.gate.set()
    assert len((await first).outcomes) == 64
    assert len((await third).outcomes) == 1


async def test_a_failed_request_frees_its_place(requests, services):
    services.embedder.fault = Unavailable("away")
    for _ in range(5):
        with pytest.raises(Unavailable):
            await requests.embed_uploads([PNG] * services.policy.request_images)
    services.embedder.fault = None
    assert len((await requests.embed_uploads([PNG])).outcomes) == 1


async def test_vectors_of_two_spaces_are_never_in_one_answer(requests, services):
    embed = services.embedder.embed_images

    async def replaced_after_one(model, images):
        embedded = await embed(model, images)
        services.embedder.model = FakeModel(space_key="another")
        return embedded

    services.embedder.embed_images = replaced_after_one
    with pytest.raises(Unavailable, match="The model was replaced meanwhile"):
        await requests.embed_uploads([PNG] * 6)
    assert (await requests.embed_uploads([PNG] * 6)).card.space_key == "another"


async def test_a_vector_that_is_not_finite_never_leaves(requests, services):
    services.embedder.model.vector = lambda image: np.array([0, np.nan], np.float32)
    with pytest.raises(ServiceError, match="not finite"):
        await requests.embed_uploads([PNG])


@pytest.mark.parametrize("fault", [WorkerCrashed("gone"), Overloaded("full")], ids=["crash", "queue"])
async def test_a_chunk_whose_replica_dies_or_is_full_is_sent_again(requests, services, fault):
    embed, faults = services.embedder.embed_images, [fault, fault]

    async def die_twice(model, images):
        if faults:
            raise faults.pop()
        return await embed(model, images)

    services.embedder.embed_images = die_twice
    assert len((await requests.embed_uploads([PNG])).outcomes) == 1
