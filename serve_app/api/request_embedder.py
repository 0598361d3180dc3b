"""Embeds the images and texts of requests whose clients wait: over all replicas, in bounded number, with retries.

The job loop has its own window (`Policy.window`). The window of requests is smaller, so that requests and a running
job share the replicas.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from serve_app.embedding.fan_out import joined, spread
from serve_app.errors import Saturated, ServiceError, TooLarge
from serve_app.jobs.retrying import SECOND_CHANCE
from serve_app.records import Skip
from serve_app.services import Embedded, Services


class RequestEmbedder:
    """Embeds images for the requests of one process, with one limit for each request and one for all together."""

    def __init__(self, find_services: Callable[[], Services]) -> None:
        self._find_services = find_services
        self._n_images = 0

    async def embed_texts(self, texts: list[str], model: str | None = None) -> Embedded:
        """Embed one or more texts with the default model or another one.

        Raises:
            TooLarge, Saturated, Unavailable: as for images, with which texts share their limits.
            NoTextTower, InvalidRequest: see `services.Embedder.embed_texts`.
        """
        services = self._find_services()
        name = model or services.settings.model
        self._require_few(len(texts), "texts")
        with self._admitted(len(texts), 2 * services.policy.request_images):
            return await SECOND_CHANCE.until_answered(lambda: services.embedder.embed_texts(name, texts), what=name)

    async def embed_uploads(self, images: list[bytes], model: str | None = None) -> Embedded:
        """Embed one or more encoded images with the default model or another one.

        Raises:
            TooLarge: there are more images than `Policy.request_images`.
            Saturated: the process would have more than twice `Policy.request_images` images under way.
            Unavailable: the model was replaced meanwhile.
            ServiceError: a replica raised it, or a vector is not finite.
        """
        services = self._find_services()
        policy = services.policy
        name = model or services.settings.model
        self._require_few(len(images), "images")
        share = math.ceil(len(images) / policy.max_replicas)
        with self._admitted(len(images), 2 * policy.request_images):
            parts = await spread(
                lambda chunk: SECOND_CHANCE.until_answered(
                    lambda: services.embedder.embed_images(name, list(chunk)),
                    what=name,
                ),
                images,
                chunk_images=max(1, min(policy.chunk_images, share)),
                window=policy.max_replicas * policy.target_ongoing,
            )
        embedded = joined(parts)
        if not all(isinstance(outcome, Skip) or np.isfinite(outcome).all() for outcome in embedded.outcomes):
            raise ServiceError("The model gave a vector that is not finite.")
        return embedded

    def _require_few(self, number: int, what: str) -> None:
        most = self._find_services().policy.request_images
        if number > most:
            raise TooLarge(f"A request takes at most {most} {what}; this one has {number}.")

    @contextmanager
    def _admitted(self, n_images: int, most: int) -> Iterator[None]:
        if self._n_images + n_images > most:
            raise Saturated(f"{self._n_images} images are being embedded here and {most} may be; try again later.")
        self._n_images += n_images
        try:
            yield
        finally:
            self._n_images -= n_images
