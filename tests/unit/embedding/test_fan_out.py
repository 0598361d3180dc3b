import asyncio

import pytest

from serve_app.embedding.fan_out import spread
from serve_app.errors import Unavailable


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


async def test_a_chunk_that_fails_fails_the_request_and_stops_the_others(replicas):
    replicas.faults = {0: [Unavailable("late")]}
    with pytest.raises(Unavailable):
        await spread(replicas.embed, list(range(4000)), chunk_images=4, window=2)
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
