import asyncio
import contextvars
from types import SimpleNamespace

import numpy as np
import pytest

from serve_app.api import readiness
from serve_app.api.readiness import Probe, Readiness
from serve_app.config import Settings
from serve_app.errors import ModelUnavailable, StoreUnavailable
from serve_app.records import Skip
from serve_app.services import Embedded
from serve_app.store.operations import Health
from tests.fakes import FakeEmbedder


class FakeStore:
    """Answers `Health.check`, or fails; counts."""

    def __init__(self):
        self.n_checks = 0
        self.fault = None
        self.warnings = []

    async def ask(self, method):
        assert method is Health.check
        self.n_checks += 1
        if self.fault is not None:
            raise self.fault
        return self.warnings


@pytest.fixture
def services():
    return SimpleNamespace(settings=Settings(), embedder=FakeEmbedder(), writer=FakeStore())


async def test_a_service_that_embeds_and_writes_is_ready(services):
    assert await Readiness(lambda: services).reasons() == {}
    assert (services.embedder.n_images, services.writer.n_checks) == (1, 1)


async def test_each_component_gives_its_own_reason(services):
    services.embedder.fault = ModelUnavailable("the weights are gone")
    services.writer.fault = StoreUnavailable("the disk is full")
    reasons = await Readiness(lambda: services).reasons()
    assert set(reasons) == {"model", "store"}
    assert "the weights are gone" in reasons["model"]
    assert "the disk is full" in reasons["store"]


@pytest.mark.parametrize(
    "vector", [Skip("", "", "corrupt", "damaged"), np.full(768, np.nan, np.float32)], ids=["refused", "nan"]
)
async def test_a_model_that_gives_no_usable_vector_is_not_ready(services, monkeypatch, vector):
    async def embed(model, images):
        return Embedded(services.embedder.model.card, [vector])

    monkeypatch.setattr(services.embedder, "embed_images", embed)
    assert set(await Readiness(lambda: services).reasons()) == {"model"}


async def test_an_unforeseen_failure_is_logged_and_not_quoted(services, caplog):
    services.writer.fault = RuntimeError("/secret/path")
    reasons = await Readiness(lambda: services).reasons()
    assert "secret" not in reasons["store"]
    assert "/secret/path" in caplog.text


async def test_what_the_store_finds_amiss_is_a_warning(services):
    services.writer.warnings = ["Dataset 'a' should have 3 vectors and has 2."]
    probes = Readiness(lambda: services)
    assert await probes.reasons() == {}
    assert probes.warnings == services.writer.warnings


async def test_an_answer_is_kept_for_a_while_and_then_asked_anew(services):
    now = 100.0
    probes = Readiness(lambda: services, clock=lambda: now)
    for _ in range(3):
        await probes.reasons()
    assert services.writer.n_checks == 1
    services.writer.fault = StoreUnavailable("gone")
    now += readiness.KEPT_S - 0.01
    assert await probes.reasons() == {}
    now += 0.02
    assert set(await probes.reasons()) == {"store"}


async def test_many_who_ask_at_once_share_one_probe(services):
    services.embedder.gate = asyncio.Event()
    probes = Readiness(lambda: services)
    asking = [asyncio.create_task(probes.reasons()) for _ in range(20)]
    while services.embedder.n_calls == 0:
        await asyncio.sleep(0)
    services.embedder.gate.set()
    assert await asyncio.gather(*asking) == [{}] * 20
    assert services.embedder.n_calls == 1


async def test_a_component_that_hangs_is_not_ready_and_is_not_asked_again_meanwhile(monkeypatch):
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.01)
    gate, n_asked = asyncio.Event(), 0

    async def hang():
        nonlocal n_asked
        n_asked += 1
        await gate.wait()

    probe = Probe("model", hang)
    assert "no answer" in await probe.reason()
    assert "no answer" in await probe.reason()
    assert n_asked == 1
    gate.set()
    assert await probe.reason() is None


async def test_a_probe_is_not_part_of_the_request_that_asked_for_it():
    of_request = contextvars.ContextVar("of_request", default="none")
    of_request.set("a request")

    async def tell():
        return of_request.get()

    assert await Probe("model", tell).reason() == "none"


async def test_a_probe_that_is_cut_short_is_asked_again():
    now, calls = 100.0, 0

    async def cancelled_once():
        nonlocal calls
        calls += 1
        if calls == 1:
            raise asyncio.CancelledError

    probe = Probe("model", cancelled_once, clock=lambda: now)
    assert "cut short" in await probe.reason()
    now += readiness.KEPT_S
    assert await probe.reason() is None


async def test_a_good_answer_stands_while_the_next_takes_its_turn_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.01)
    now, gate = 100.0, asyncio.Event()
    gate.set()

    async def take_turns():
        await gate.wait()

    probe = Probe("model", take_turns, clock=lambda: now)
    assert await probe.reason() is None
    gate.clear()
    now += readiness.KEPT_S
    assert await probe.reason() is None
    now += readiness.BUSY_S - 0.1
    assert await probe.reason() is None
    now += 0.2
    assert "no answer" in await probe.reason()


async def test_after_a_bad_answer_silence_is_bad_too(monkeypatch):
    monkeypatch.setattr(readiness, "PATIENCE_S", 0.01)
    now, gate = 100.0, asyncio.Event()
    gate.set()

    async def fail_then_hang():
        await gate.wait()
        return "not ready"

    probe = Probe("model", fail_then_hang, clock=lambda: now)
    assert await probe.reason() == "not ready"
    gate.clear()
    now += readiness.KEPT_S
    assert "no answer" in await probe.reason()


async def test_a_caller_that_leaves_does_not_end_the_probe():
    gate = asyncio.Event()

    async def ask():
        await gate.wait()
        return "not ready"

    probe = Probe("model", ask)
    leaving = asyncio.create_task(probe.reason())
    staying = asyncio.create_task(probe.reason())
    await asyncio.sleep(0)
    leaving.cancel()
    gate.set()
    assert await staying == "not ready"
