"""A client for other jobs of the same Ray cluster: it embeds images without HTTP.

    ray.init(address="auto")
    vectors = EmbeddingClient().embed(images)

For sets that do not fit in memory, use a few long-lived actors (each keeps one handle):

    actors = ray.data.ActorPoolStrategy(size=2)
    ray.data.read_binary_files(folder).map_batches(EmbedImages, compute=actors, batch_size=256, num_cpus=0.1)
"""

import asyncio
import io
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image, ImageOps
from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.embedder import APPLICATION, DEPLOYMENT
from deployments.handles import ask, service_errors
from serve_app.embedding.fan_out import joined, spread
from serve_app.errors import InvalidImage, Unavailable
from serve_app.jobs.retrying import SECOND_CHANCE
from serve_app.records import ModelCard, Skip, VectorArray
from serve_app.services import Embedded, Outcomes

T = TypeVar("T")

Picture = bytes | str | PathLike[str] | Image.Image | NDArray[np.uint8] | dict[str, Any] | None
"""The bytes of an image file, a path to it, a Pillow image, or (H, W) or (H, W, 3 or 4) uint8 pixels.

Rows of tables may also be dictionaries whose `bytes` are a file's (Hugging Face's `Image` columns), or None.
"""

WHO = "the embedder"

_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""The modes that a PNG keeps as they are; the others (CMYK, YCbCr, LAB, HSV, F, I) become RGB."""


class EmbeddingClient:
    """A client of the default model of the service on this Ray cluster. A client is cheap to make and can be pickled.

    Args:
        chunk: the number of images in one call to a replica.
        window: the number of calls under way at a time.
        timeout_s: the time limit of one call. The client repeats calls that fail because their replica died.
    """

    def __init__(self, *, chunk: int = 16, window: int = 8, timeout_s: float = 120.0) -> None:
        self.chunk = chunk
        self.window = window
        self.timeout_s = timeout_s
        self._handle: DeploymentHandle[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the handle out, because each process must find the service itself."""
        return self.__dict__ | {"_handle": None}

    def describe(self) -> ModelCard:
        """The model's card; see `services.Embedder.describe`."""
        return _finish(self.describe_async())

    def embed(self, images: Sequence[Picture]) -> VectorArray:
        """Embed images.

        Returns:
            (N, D) float32 vectors in the order of `images`.

        Raises:
            InvalidImage: some images cannot be decoded; the message has the first one's position. See `embed_each`.
            Unavailable: the service does not answer or does not run.
        """
        return _finish(self.embed_async(images))

    def embed_each(self, images: Sequence[Picture]) -> Outcomes:
        """Embed images; each result is a (D,) vector or a `Skip`. Raises `Unavailable`."""
        return _finish(self.embed_each_async(images))

    async def describe_async(self) -> ModelCard:
        """See `describe`."""
        card: ModelCard = await self._ask("describe")
        return card

    async def embed_async(self, images: Sequence[Picture]) -> VectorArray:
        """See `embed`."""
        embedded = await self.embed_each_async(images)
        vectors = [outcome for outcome in embedded if not isinstance(outcome, Skip)]
        if len(vectors) < len(embedded):
            raise InvalidImage(_complaint(embedded))
        return np.stack(vectors) if vectors else np.empty((0, (await self.describe_async()).dimension), np.float32)

    async def embed_each_async(self, images: Sequence[Picture]) -> Outcomes:
        """See `embed_each`."""

        async def embed(chunk: Sequence[Picture]) -> Embedded:
            encoded = await asyncio.to_thread(lambda: [_encoded(image) for image in chunk])
            embedded: Embedded = await SECOND_CHANCE.until_answered(
                lambda: self._ask("embed_images", encoded), what=WHO
            )
            return embedded

        parts = await spread(embed, images, chunk_images=self.chunk, window=self.window)
        return joined(parts).outcomes if parts else []

    async def _ask(self, method: str, *args: object) -> Any:
        if self._handle is None:
            if not ray.is_initialized():  # Serve would start a new cluster and find no service there
                raise Unavailable("this process is in no Ray cluster: call ray.init(address='auto') first")
            async with service_errors(WHO):
                self._handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
        return await ask(self._handle, method, *args, who=WHO, timeout_s=self.timeout_s)


class EmbedImages:
    """Adds vectors to batches of `ray.data.Dataset.map_batches`.

    A row whose image cannot be decoded stays: its vector is NaN and its `refusal` says why. Other refusals are None.

    Args:
        column: the column of images, as `Picture`s: `bytes` of `read_binary_files`, `image` of `read_images`.
        output: the column for the vectors, (B, D) float32.
        client: the client of the service.
    """

    def __init__(self, column: str = "bytes", output: str = "embedding", client: EmbeddingClient | None = None) -> None:
        self._column = column
        self._output = output
        self._client = client or EmbeddingClient()
        self._dimension = self._client.describe().dimension

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the batch with the columns of vectors and refusals added."""
        embedded = self._client.embed_each(list(batch[self._column]))
        vectors = np.full((len(embedded), self._dimension), np.nan, np.float32)
        refusals = np.full(len(embedded), None, object)
        for row, outcome in enumerate(embedded):
            if isinstance(outcome, Skip):
                refusals[row] = f"{outcome.reason}: {outcome.detail}"
            else:
                vectors[row] = outcome
        return {**batch, self._output: vectors, "refusal": refusals}


def _encoded(image: Picture) -> bytes:
    """The bytes of the image's file; an image without a file is encoded as an upright PNG."""
    if isinstance(image, dict):
        image = image.get("bytes")
    if image is None:
        return b""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | PathLike):
        return Path(image).read_bytes()
    buffer = io.BytesIO()
    try:
        picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        upright = ImageOps.exif_transpose(picture)
        if upright.mode not in _PNG_MODES:
            upright = upright.convert("RGB")
        upright.save(buffer, "PNG", compress_level=1)
    except (OSError, TypeError, ValueError, SyntaxError):
        return b""  # the replica refuses it, as any other image that cannot be decoded
    return buffer.getvalue()


def _complaint(embedded: Outcomes) -> str:
    refused = [(i, outcome) for i, outcome in enumerate(embedded) if isinstance(outcome, Skip)]
    index, first = refused[0]
    others = f" (and {len(refused) - 1} more images)" if len(refused) > 1 else ""
    return f"image {index}: {first.detail} ({first.reason}){others}"


def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new thread, because a notebook's own thread already runs an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
