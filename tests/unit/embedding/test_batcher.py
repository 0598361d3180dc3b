import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from serve_app.embedding.batcher import Batcher


class Model:
    """Each image's vector is its first pixel; a pass can be held back until it is let go."""

    def __init__(self):
        self.sizes = []
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, pixels):
        self.sizes.append(len(pixels))
        self.begun.set()
        assert self.may_end.wait(60)
        if (pixels == 255).any():
            raise ValueError("a white image")
        return pixels[:, 0, 0, :1].astype(np.float32)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    with ThreadPoolExecutor(1) as thread:
        yield Batcher(model, thread, max_images=4)


def images(*values):
    return np.array(values, np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)


async def begun(model):
    assert await asyncio.to_thread(model.begun.wait, 60)
    model.begun.clear()


async def hold(batcher, model):
    """A first call, which the model is busy with until `may_end` is set."""
    model.may_end.clear()
    first = asyncio.create_task(batcher.vectors(images(9)))
    await begun(model)
    return first


async def test_a_lone_call_is_computed_at_once(batcher, model):
    assert (await batcher.vectors(images(1, 2))).tolist() == [[1], [2]]
    assert model.sizes == [2]


async def test_what_arrives_meanwhile_goes_together_and_everybody_gets_their_own(batcher, model):
    first = await hold(batcher, model)
    others = [asyncio.create_task(batcher.vectors(images(*values))) for values in ((1,), (2, 3), (4,))]
    await asyncio.sleep(0)
    model.may_end.set()
    assert (await first).tolist() == [[9]]
    assert [vectors.tolist() for vectors in await asyncio.gather(*others)] == [[[1]], [[2], [3]], [[4]]]
    assert model.sizes == [1, 4]


async def test_a_batch_is_never_larger_than_allowed_and_keeps_the_order(batcher, model):
    first = await hold(batcher, model)
    others = [asyncio.create_task(batcher.vectors(images(*values))) for values in ((1, 2, 3), (4, 5), (6,))]
    await asyncio.sleep(0)
    model.may_end.set()
    await asyncio.gather(first, *others)
    assert model.sizes == [1, 3, 3]


async def test_more_images_than_a_batch_holds_are_not_refused(batcher, model):
    assert len(await batcher.vectors(images(*range(6)))) == 6
    assert model.sizes == [6]


async def test_who_has_given_up_is_not_computed_for(batcher, model):
    first = await hold(batcher, model)
    gone, stays = (asyncio.create_task(batcher.vectors(images(value))) for value in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    model.may_end.set()
    assert (await stays).tolist() == [[2]]
    await first
    assert model.sizes == [1, 1]


async def test_an_error_reaches_everybody_in_the_batch_and_the_next_batch_is_computed(batcher, model):
    first = await hold(batcher, model)
    others = [asyncio.create_task(batcher.vectors(images(value))) for value in (1, 255)]
    await asyncio.sleep(0)
    model.may_end.set()
    await first
    for other in others:
        with pytest.raises(ValueError, match="white"):
            await other
    assert (await batcher.vectors(images(5))).tolist() == [[5]]
