"""Embeds the images of requests whose clients wait: over all replicas, in bounded number, with retries.

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

    async def embed_uploads(self, images: list[bytes]) -> Embedded:
        """Embed one or more encoded images with the default model.

        Raises:
            TooLarge: there are more images than `Policy.request_images`.
            Saturated: the process would have more than twice `Policy.request_images` images under way.
            Unavailable: the model was replaced meanwhile.
            ServiceError: a replica raised it, or a vector is not finite.
        """
        services = self._find_services()
        policy = services.policy
        if len(images) > policy.request_images:
            raise TooLarge(f"A request takes at most {policy.request_images} images; this one has {len(images)}.")
        share = math.ceil(len(images) / policy.max_replicas)
        with self._admitted(len(images), 2 * policy.request_images):
            parts = await spread(
                lambda chunk: SECOND_CHANCE.until_answered(
                    lambda: services.embedder.embed_images(services.settings.model, list(chunk)),
                    what=services.settings.model,
                ),
                images,
                chunk_images=max(1, min(policy.chunk_images, share)),
                window=policy.max_replicas * policy.target_ongoing,
            )
        embedded = joined(parts)
        if not all(isinstance(outcome, Skip) or np.isfinite(outcome).all() for outcome in embedded.outcomes):
            raise ServiceError("The model gave a vector that is not finite.")
        return embedded

    @contextmanager
    def _admitted(self, n_images: int, most: int) -> Iterator[None]:
        if self._n_images + n_images > most:
            raise Saturated(f"{self._n_images} images are being embedded here and {most} may be; try again later.")
        self._n_images += n_images
        try:
            yield
        finally:
            self._n_images -= n_images
