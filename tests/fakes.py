"""Stand-ins for what needs a model or a cluster, simple enough to check by hand."""

import hashlib

import numpy as np

from serve_app.errors import Conflict, ModelUnavailable, SampleNotFound
from serve_app.records import ModelCard, Neighbour, Skip
from serve_app.services import Embedded
from serve_app.store.vectors import Vectors


class FakeModel:
    """A model whose vectors anybody can compute: the SHA-256 of the bytes, repeated, as numbers in [-1, 1].

    Equal files have equal vectors, others practically never.
    """

    def __init__(self, name="dinov2-base", dimension=768, space_key="fake-space"):
        self.card = ModelCard(name=name, dimension=dimension, space_key=space_key, device="cpu", precision="fp32")

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

    async def embed(self, model, images):
        self.n_calls += 1
        self.n_images += len(images)
        if self.gate is not None:
            await self.gate.wait()
        self._check(model)
        return Embedded(self.model.card, [self._embed(image) for image in images])

    def _check(self, model):
        if self.fault is not None:
            raise self.fault
        if model != self.model.card.name:
            raise ModelUnavailable(f"the fake has no weights of {model}")

    def _embed(self, image):
        if image.startswith((b"\x89PNG", b"\xff\xd8")):
            return self.model.vector(image)
        return Skip("", "", "unidentified", "not an image of a known format")


class FakeNeighbours:
    """Answers from the real store's vectors by brute force."""

    def __init__(self, writer, space_key="fake-space"):
        self._writer = writer
        self._space_key = space_key

    async def similar(self, dataset_id, sample_id, limit):
        stored = await self._writer.call(Vectors.read, dataset_id)
        if sample_id not in stored.sample_ids:
            raise SampleNotFound(f"sample {sample_id} has no vector")
        query = stored.vectors[stored.sample_ids.index(sample_id)]
        return [n for n in self._ranked(stored, query) if n.sample_id != sample_id][:limit]

    async def search(self, dataset_id, query, space_key, limit):
        if space_key != self._space_key:
            raise Conflict("the dataset's vectors are of another space")
        stored = await self._writer.call(Vectors.read, dataset_id)
        return self._ranked(stored, query)[:limit]

    async def duplicates(self, dataset_id, threshold):
        stored = await self._writer.call(Vectors.read, dataset_id)
        groups = {}
        for i, vector in enumerate(stored.vectors):
            groups.setdefault(vector.tobytes(), []).append(self._neighbour(stored, i, 1.0))
        return [group for group in groups.values() if len(group) > 1]

    async def outliers(self, dataset_id, k, limit):
        stored = await self._writer.call(Vectors.read, dataset_id)
        unit = stored.vectors / np.linalg.norm(stored.vectors, axis=1, keepdims=True)
        best = np.sort(unit @ unit.T, axis=1)[:, ::-1][:, 1 : k + 1].mean(axis=1)
        return [self._neighbour(stored, i, float(best[i])) for i in np.argsort(best)[:limit]]

    async def diverse(self, dataset_id, n):
        stored = await self._writer.call(Vectors.read, dataset_id)
        return [self._neighbour(stored, i, 0.0) for i in range(min(n, len(stored.sample_ids)))]

    def _ranked(self, stored, query):
        unit = stored.vectors / np.linalg.norm(stored.vectors, axis=1, keepdims=True)
        scores = unit @ (query / np.linalg.norm(query))
        return [self._neighbour(stored, i, float(scores[i])) for i in np.argsort(-scores, kind="stable")]

    def _neighbour(self, stored, i, score):
        return Neighbour(stored.sample_ids[i], stored.file_names[i], stored.labels[i], score)


class FakeRunner:
    """Counts how often it was nudged."""

    def __init__(self):
        self.n_nudges = 0

    async def nudge(self):
        self.n_nudges += 1
