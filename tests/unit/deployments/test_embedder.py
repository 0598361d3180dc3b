"""A DinoV2 replica whose device breaks, with a model that anybody can compute."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from deployments import embedder
from deployments.embedder import DinoV2
from serve_app.errors import ModelUnavailable, Unavailable
from serve_app.images.decode import Preprocessing
from serve_app.policy import Policy
from serve_app.records import ModelCard, SourceFile
from tests.ray.photographs import make_photograph


class Model:
    """Each vector is the image's mean colour; a broken device never computes again."""

    def __init__(self):
        self.card = ModelCard(name="tiny", dimension=3, space_key="space", device="cuda", precision="bf16")
        self.preprocessing = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.is_broken = False

    def vectors(self, images):
        if self.is_broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return images.mean(axis=(1, 2)).astype(np.float32)


class NoMetrics:
    def __init__(self, model_name, batch_images):
        self.settled = self.count = lambda *args, **images: None
        self.decoding = contextlib.nullcontext
        self.forward = contextlib.nullcontext


@pytest.fixture
def replica(monkeypatch, settings):
    monkeypatch.setattr(embedder, "ReplicaMetrics", NoMetrics)
    monkeypatch.setattr(embedder, "keep_replica_here", lambda: None)
    model = Model()

    def load(settings, name, policy):
        if name == "missing":
            raise ModelUnavailable("no weights")
        return model

    policy = Policy.choose(settings, n_cpus=2, n_gpus=0)
    return SimpleNamespace(model=model, make=lambda name: DinoV2(settings, name, policy, load))


async def test_a_replica_whose_device_broke_asks_for_another_and_fails_its_checks(replica, tmp_path):
    dino = replica.make("tiny")
    photograph = make_photograph(tmp_path / "a.png", 1)
    files = [SourceFile("a.png", "a.png")]
    await dino.check_health()
    assert len((await dino.embed_files(str(tmp_path), files)).vectors) == 1

    replica.model.is_broken = True
    # A job asks another replica after such an answer, and a client is told to come again; no image is to blame.
    for answer in (await dino.embed_files(str(tmp_path), files), await dino.embed_images([photograph.read_bytes()])):
        assert type(answer) is Unavailable
    for _ in range(3):
        with pytest.raises(Unavailable):
            await dino.check_health()


async def test_a_replica_without_its_weights_is_not_replaced(replica):
    dino = replica.make("missing")
    await dino.check_health()
    assert type(await dino.describe()) is ModelUnavailable
