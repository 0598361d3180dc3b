import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from serve_app.embedding.model import require_pixels
from serve_app.embedding.pulse import PROOF_S, Pulse
from serve_app.errors import ModelUnavailable, Unavailable

WHITE = np.full((2, 4, 4, 3), 255, np.uint8)


class Model:
    """Fails stickily from its first pass after `breaks`, as a GPU does after an illegal access."""

    def __init__(self, dtype=np.uint8):
        self.preprocessing = SimpleNamespace(crop_px=4, dtype=np.dtype(dtype))
        self.sizes = []
        self.fault = None
        self.is_broken = False
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def text(self):
        return SimpleNamespace(vectors=lambda texts: (self.vectors(WHITE), []))

    def breaks(self):
        self.is_broken = True
        self.fault = RuntimeError("CUDA error: an illegal memory access was encountered")

    def vectors(self, images):
        require_pixels(images, self.preprocessing)
        self.sizes.append(len(images))
        self.begun.set()
        assert self.may_end.wait(60)
        if self.fault is not None and (self.is_broken or images.any()):
            raise self.fault
        return images[:, 0, 0, :1].astype(np.float32)


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.fixture
def pulse(thread, clock):
    return Pulse(thread, clock)


async def test_a_device_in_a_sticky_error_fails_every_check_from_the_first_pass_on(pulse, model):
    model.breaks()
    with pytest.raises(Unavailable):
        pulse.vectors(model, WHITE)
    for _ in range(3):  # so many does Serve want before it replaces a replica
        with pytest.raises(Unavailable):
            await pulse.check(model)


async def test_an_idle_device_that_breaks_is_found_by_a_blank_image(pulse, model, clock):
    model.breaks()
    await pulse.check(model)
    assert model.sizes == []
    clock.now_s += PROOF_S + 1
    for _ in range(3):
        with pytest.raises(Unavailable):
            await pulse.check(model)
    assert model.sizes == [1]


async def test_a_model_that_takes_other_pixels_than_bytes_is_proved_with_its_own(pulse, clock):
    """DINOv3 keeps its pixels in float32, and an idle replica of it was taken for broken."""
    model = Model(np.float32)
    clock.now_s += PROOF_S + 1
    await pulse.check(model)
    assert model.sizes == [1]


async def test_texts_prove_a_device_and_find_a_broken_one_as_images_do(pulse, model, clock):
    clock.now_s += PROOF_S + 1
    assert len(pulse.texts(model, ["a", "b"])[0]) == 2
    await pulse.check(model)
    assert model.sizes == [2]
    model.breaks()
    with pytest.raises(Unavailable):
        pulse.texts(model, ["a", "b"])
    with pytest.raises(Unavailable):
        await pulse.check(model)


async def test_a_check_costs_nothing_after_a_pass_and_one_image_a_minute_without(pulse, model, clock):
    clock.now_s += PROOF_S + 1
    pulse.vectors(model, WHITE)
    for _ in range(20):
        await pulse.check(model)
    assert model.sizes == [2]
    clock.now_s += PROOF_S + 1
    for _ in range(20):
        await pulse.check(model)
    assert model.sizes == [2, 1]


async def test_a_check_does_not_wait_for_the_pass_that_is_computed(pulse, model, clock, thread):
    model.may_end.clear()
    computing = thread.submit(pulse.vectors, model, WHITE)
    assert model.begun.wait(60)
    clock.now_s += PROOF_S + 1
    await pulse.check(model)
    assert not computing.done()
    model.may_end.set()
    assert len(computing.result(60)) == 2
    assert model.sizes == [2]


async def test_images_that_the_model_refuses_are_no_sign_of_a_broken_device(pulse, model):
    model.fault = ValueError("not such images")
    with pytest.raises(ValueError, match="not such images"):
        pulse.vectors(model, WHITE)
    await pulse.check(model)
    assert model.sizes == [2, 1]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("bad_alloc"), ModelUnavailable("no room on the GPU")])
async def test_a_lack_of_memory_is_reported_as_such(pulse, model, clock, error):
    model.breaks()
    model.fault = error
    with pytest.raises(type(error)):
        pulse.vectors(model, WHITE)
    assert model.sizes == [2]
    clock.now_s += PROOF_S + 1
    if isinstance(error, ModelUnavailable):
        await pulse.check(model)
    else:
        with pytest.raises(type(error)):
            await pulse.check(model)


async def test_a_device_that_computes_again_is_healthy(pulse, model):
    model.breaks()
    with pytest.raises(Unavailable):
        pulse.vectors(model, WHITE)
    model.fault = None
    assert len(pulse.vectors(model, WHITE)) == 2
    await pulse.check(model)
