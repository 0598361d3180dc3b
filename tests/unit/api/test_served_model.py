import asyncio

import pytest

from serve_app.api import served_model
from serve_app.api.served_model import ServedModel, names_of
from serve_app.config import Settings
from serve_app.errors import ModelUnavailable
from serve_app.records import ModelCard
from serve_app.services import Services
from tests.fakes import FakeEmbedder


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def model(embedder, monkeypatch):
    monkeypatch.setattr(served_model, "PATIENCE_S", 0.01)
    return ServedModel(lambda: Services(Settings(), None, None, embedder, None, None))


async def never(model):
    await asyncio.Event().wait()


async def test_a_model_that_has_never_answered_is_loading(model, embedder):
    embedder.describe = never
    with pytest.raises(ModelUnavailable, match="still loading"):
        await model.card()
    assert model.last is None


async def test_a_model_that_has_answered_before_is_busy(model, embedder):
    card = await model.card()
    embedder.describe = never
    assert await model.card() == card


async def test_a_model_that_says_why_it_is_away_is_believed(model, embedder):
    card = await model.card()
    embedder.fault = ModelUnavailable("no weights")
    with pytest.raises(ModelUnavailable, match="no weights"):
        await model.card()
    assert model.last == card


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("dinov2-base", ("dinov2-base@0123456789ab", "dinov2-base", "facebook/dinov2-base")),
        ("/models/mine", ("mine@0123456789ab", "mine", "/models/mine")),
    ],
)
def test_a_model_has_a_name_that_pins_its_space_and_plain_ones(name, names):
    assert names_of(ModelCard(name, 768, "0123456789abcdef", "cpu", "fp32")) == names
