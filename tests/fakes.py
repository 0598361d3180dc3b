"""Stand-ins for what needs a model or a cluster, simple enough to check by hand."""

import hashlib

import numpy as np

from serve_app.embedding.text import check
from serve_app.errors import ModelUnavailable, NoTextTower
from serve_app.records import IMAGES_ONLY, ModelCard, Skip
from serve_app.services import Embedded


class FakeModel:
    """A model whose vectors anybody can compute: the SHA-256 of the bytes, repeated, as numbers in [-1, 1].

    Equal files have equal vectors, others practically never.
    """

    def __init__(self, name="dinov2-base", dimension=768, space_key="fake-space", *, no_text=IMAGES_ONLY):
        self.card = ModelCard(name, dimension, space_key, device="cpu", precision="fp32", no_text=no_text)

    def vector(self, image):
        """The (D,) float32 vector of an encoded image."""
        digest = np.frombuffer(hashlib.sha256(image).digest(), dtype=np.uint8)
        return (np.resize(digest, self.card.dimension).astype(np.float32) - 127.5) / 127.5


class FakeEmbedder:
    """Embeds with `FakeModel` and counts; what does not begin like a PNG or JPEG is refused.

    Set `fault` to an exception to have every call raise it, `gate` to an event to hold every call back.
    """

    def __init__(self, model=None):
        self.model = model or FakeModel()
        self.n_images = 0
        self.n_calls = 0
        self.fault = None
        self.gate = None

    async def describe(self, model):
        self._check(model)
        return self.model.card

    async def embed_images(self, model, images):
        self.n_calls += 1
        self.n_images += len(images)
        if self.gate is not None:
            await self.gate.wait()
        self._check(model)
        return Embedded(self.model.card, [self._embed(image) for image in images])

    async def embed_texts(self, model, texts):
        """The vector of a text is that of the image whose bytes it spells in Latin-1; long texts are cut to 20."""
        self._check(model)
        if self.model.card.no_text:
            raise NoTextTower(f"{model} takes no text: {self.model.card.no_text}")
        check(texts)
        vectors = [self.model.vector(text[:20].encode("latin-1")) for text in texts]
        return Embedded(self.model.card, vectors, tuple(n for n, text in enumerate(texts) if len(text) > 20))

    def _check(self, model):
        if self.fault is not None:
            raise self.fault
        if model != self.model.card.name:
            raise ModelUnavailable(f"the fake has no weights of {model}")

    def _embed(self, image):
        if image.startswith((b"\x89PNG", b"\xff\xd8")):
            return self.model.vector(image)
        return Skip("", "", "unidentified", "not an image of a known format")


class FakeRunner:
    """Counts how often it was nudged."""

    def __init__(self):
        self.n_nudges = 0

    async def nudge(self):
        self.n_nudges += 1
