"""A client for other jobs of the same Ray cluster: it embeds images and texts without HTTP.

    ray.init(address="auto")
    vectors = EmbeddingClient().embed(images)

For sets that do not fit in memory, use a few long-lived actors (each keeps one handle):

    actors = ray.data.ActorPoolStrategy(size=2)
    ray.data.read_binary_files(folder).map_batches(EmbedImages, compute=actors, batch_size=256, num_cpus=0.1)
"""

import asyncio
import io
import warnings
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

from deployments.embedder import APPLICATION, DEPLOYMENT, further_application_name
from deployments.handles import ask, service_errors
from serve_app.embedding import weights
from serve_app.embedding.fan_out import joined, spread
from serve_app.errors import InvalidImage, Unavailable
from serve_app.images.resampling import SIXTEEN_BIT, UNBOUNDED
from serve_app.jobs.retrying import SECOND_CHANCE
from serve_app.records import ModelCard, Skip, VectorArray
from serve_app.services import Embedded, Outcomes
from serve_app.sources.files import unreadable

T = TypeVar("T")

Picture = bytes | str | PathLike[str] | Image.Image | NDArray[np.uint8] | dict[str, Any] | None
"""The bytes of an image file, a path to it, a Pillow image, or (H, W) or (H, W, 3 or 4) uint8 pixels.

Rows of tables may also be dictionaries whose `bytes` are a file's (Hugging Face's `Image` columns), or None. (H, W)
pixels of other numbers, and Pillow images of them, are taken as the same numbers in a TIFF: stretched from their lowest
to their highest. Colours that are no uint8 are refused, since nobody can tell their range.
"""

WHO = "the embedder"

_PNG_MODES = frozenset({"1", "L", "LA", "I;16", "P", "RGB", "RGBA"})
"""The modes that a PNG keeps as they are; the others (CMYK, YCbCr, LAB, HSV) become RGB."""

_WITH_ALPHA = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}

_WAY_OUT = (
    "give uint8 pixels of shape (H, W), (H, W, 3) or (H, W, 4); np.uint8(np.rint(255 * pixels)) makes them of numbers "
    "between 0 and 1"
)


class EmbeddingClient:
    """A client of a model of the service on this Ray cluster. A client is cheap to make and can be pickled.

    Args:
        model: the default model if there is none; else a model that the service has deployed, which it does when a
            dataset is embedded or searched with it.
        chunk: the number of images in one call to a replica.
        window: the number of calls under way at a time.
        timeout_s: the time limit of one call. The client repeats calls that fail because their replica died.
    """

    def __init__(self, *, model: str | None = None, chunk: int = 16, window: int = 8, timeout_s: float = 120.0) -> None:
        self.model = model
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

    def embed_text(self, texts: Sequence[str]) -> VectorArray:
        """Embed texts in the space of the model's images; a warning names texts that were cut to the model's length.

        Returns:
            (N, D) float32 vectors in the order of `texts`.

        Raises:
            NoTextTower: the model takes no text, such as DINOv2.
            InvalidRequest: a text is empty, has more than 10,000 characters, or holds a lone surrogate.
            Unavailable: the service does not answer or does not run.
        """
        return _uncut(_finish(self._embed_texts(texts)))

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
            files = [file for file in encoded if not isinstance(file, Skip)]
            embedded: Embedded = await SECOND_CHANCE.until_answered(lambda: self._ask("embed_images", files), what=WHO)
            outcomes = iter(embedded.outcomes)
            return Embedded(embedded.card, [file if isinstance(file, Skip) else next(outcomes) for file in encoded])

        parts = await spread(embed, images, chunk_images=self.chunk, window=self.window)
        return joined(parts).outcomes if parts else []

    async def embed_text_async(self, texts: Sequence[str]) -> VectorArray:
        """See `embed_text`."""
        return _uncut(await self._embed_texts(texts))

    async def _embed_texts(self, texts: Sequence[str]) -> tuple[VectorArray, tuple[int, ...]]:
        """The vectors, and the positions of texts that were cut."""

        async def embed(chunk: Sequence[str]) -> Embedded:
            embedded: Embedded = await SECOND_CHANCE.until_answered(
                lambda: self._ask("embed_texts", list(chunk)), what=WHO
            )
            return embedded

        parts = await spread(embed, texts, chunk_images=self.chunk, window=self.window)
        if not parts:
            return np.empty((0, (await self.describe_async()).dimension), np.float32), ()
        embedded = joined(parts)
        return np.stack(embedded.vectors), embedded.cut

    async def _ask(self, method: str, *args: object) -> Any:
        if self._handle is None:
            if not ray.is_initialized():  # Serve would start a new cluster and find no service there
                raise Unavailable("this process is in no Ray cluster: call ray.init(address='auto') first")
            async with service_errors(WHO):
                self._handle = serve.get_deployment_handle(DEPLOYMENT, await self._application())
        return await ask(self._handle, method, *args, who=WHO, timeout_s=self.timeout_s)

    async def _application(self) -> str:
        """The application of the model. Raises `Unavailable`: the service has not deployed it."""
        if self.model is None:
            return APPLICATION
        name = weights.resolve(self.model)
        default = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
        card: ModelCard = await ask(default, "describe", who=WHO, timeout_s=self.timeout_s)
        if card.name in (self.model, name):
            return APPLICATION
        application = further_application_name(name)
        if application not in serve.status().applications:
            raise Unavailable(f"the service has not deployed {self.model}: embed or search a dataset with it first")
        return application


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


def _encoded(image: Picture) -> bytes | Skip:
    """The bytes of the image's file; an image without a file is encoded upright, without loss of what is decoded."""
    if isinstance(image, dict):
        image = image.get("bytes")
    if image is None:
        return b""
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes() if isinstance(image, str | PathLike) else _file_of(image)
    except OSError as error:
        if error.errno:
            return Skip.of(unreadable(error))
        return _refused(image, error)
    except (AttributeError, TypeError, ValueError, SyntaxError) as error:
        return _refused(image, error)


def _file_of(image: Image.Image | NDArray[Any]) -> bytes:
    """A PNG of a picture, or a TIFF where its pixels have no fixed range, because a PNG would clip them."""
    picture = ImageOps.exif_transpose(Image.fromarray(image) if isinstance(image, np.ndarray) else image)
    if picture.mode in SIXTEEN_BIT:
        picture = Image.fromarray(np.asarray(picture, dtype="<u2"))
    elif picture.mode not in _PNG_MODES and picture.mode not in UNBOUNDED:
        picture = picture.convert(_WITH_ALPHA.get(picture.mode, "RGB"))
    buffer = io.BytesIO()
    if picture.mode in UNBOUNDED:
        picture.save(buffer, "TIFF")
    else:
        picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _refused(image: Picture, error: Exception) -> Skip:
    """The skip for something that is no picture; it says what it is, and what to give instead."""
    if isinstance(image, np.ndarray):
        return Skip("", "", "format_not_allowed", f"{image.dtype} pixels of shape {image.shape}; {_WAY_OUT}")
    what = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
    return Skip("", "", "format_not_allowed", f"this picture ({what}) cannot be encoded: {error}; {_WAY_OUT}")


def _uncut(found: tuple[VectorArray, tuple[int, ...]]) -> VectorArray:
    """The vectors; the caller's caller is warned of texts that were cut."""
    vectors, cut = found
    if cut:
        warnings.warn(f"texts that were cut to the model's length: {list(cut)}", stacklevel=3)
    return vectors


def _complaint(embedded: Outcomes) -> str:
    refused = [(i, outcome) for i, outcome in enumerate(embedded) if isinstance(outcome, Skip)]
    index, first = refused[0]
    others = f" (and {len(refused) - 1} more images)" if len(refused) > 1 else ""
    return f"image {index}: {first.detail} ({first.reason}){others}"


def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a new thread, because a notebook's own thread already runs an event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
