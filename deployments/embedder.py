"""`DinoV2`: replicas that hold one model, read and decode in threads, and batch requests dynamically.

The application `embedder` serves the default model from the start. Any other model gets its own application at first
use, which scales to zero replicas when idle. Replicas return `ServiceError`s as values, so that a user's mistake
leaves no traceback in the logs.
"""

import asyncio
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from deployments.cluster import choose_policy
from deployments.loopback import keep_replica_here
from deployments.metrics import ReplicaMetrics
from serve_app import logs
from serve_app.config import Settings
from serve_app.embedding import weights
from serve_app.embedding.batcher import Batcher
from serve_app.embedding.chunk import Chunk, Pixels, decode_uploads
from serve_app.embedding.pulse import Pulse, is_out_of_memory
from serve_app.errors import ModelUnavailable, ServiceError, UnknownModel
from serve_app.images.decode import ImageLimits
from serve_app.policy import Policy
from serve_app.records import Block, ModelCard, Skip, SourceFile, VectorArray
from serve_app.services import Embedded
from serve_app.sources.reading import Reader

if TYPE_CHECKING:
    from serve_app.embedding.model import VisionModel

log = logging.getLogger("constellate.embedder")

APPLICATION = "embedder"
DEPLOYMENT = "DinoV2"
RELOAD_S = 5.0

_SLUG_LENGTH = 60
"""The limit keeps application names short: Ray puts them into log file names, which have at most 255 bytes."""

LoadModel = Callable[[Settings, str, Policy], "VisionModel"]


def load_model(settings: Settings, name: str, policy: Policy) -> "VisionModel":
    """Find the model's weights and load them. Raises `ModelUnavailable`, `UnknownModel`."""
    # The import is here because every process imports this module, but only replicas should load an engine.
    from serve_app.embedding import loading

    return loading.load(
        weights.locate(name),
        name=name,
        cache_dir=settings.cache_dir,
        device=settings.device,
        precision=settings.precision,
        threads=policy.compute_threads,
    )


class DinoV2:
    """A replica: one model, `decode_threads` threads that read and decode, and one thread that computes."""

    def __init__(self, settings: Settings, model_name: str, policy: Policy, load: LoadModel = load_model) -> None:
        logs.to_stderr(DEPLOYMENT)
        keep_replica_here()
        self._settings = settings
        self._model_name = model_name
        self._policy = policy
        self._load_model = load
        self._limits = ImageLimits()
        self._metrics = ReplicaMetrics(model_name, policy.batch_images)
        self._reader = Reader(settings)
        self._readers = ThreadPoolExecutor(policy.decode_threads, thread_name_prefix="read")
        self._callers = ThreadPoolExecutor(policy.max_ongoing, thread_name_prefix="chunk")
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._model: VisionModel | None = None
        self._refusal: ServiceError = ModelUnavailable(f"model {model_name} is not loaded yet")
        self._tried_at = 0.0
        self._pulse = Pulse(self._compute)
        self._batcher = Batcher(self._forward, self._compute, max_images=policy.batch_images)
        self._load()

    def _load(self) -> None:
        """Load the model, or remember the error, because a replica that fails to start cannot report it."""
        self._tried_at = time.monotonic()
        try:
            self._model = self._load_model(self._settings, self._model_name, self._policy)
        except ServiceError as error:
            log.error("model %s: %s", self._model_name, error.detail)
            self._refusal = error

    async def _ready_model(self) -> "VisionModel | ServiceError":
        """The model or the error; missing weights are looked for again at most every `RELOAD_S`."""
        if self._model is None and time.monotonic() - self._tried_at > RELOAD_S:
            await asyncio.get_running_loop().run_in_executor(self._compute, self._load)
        return self._model or self._refusal

    async def check_health(self) -> None:
        """Serve calls this twice a second, and replaces the replica after three errors in a row.

        A replica without its model is healthy: it looks for the weights by itself, and says what it lacks.

        Raises:
            Unavailable: the device computes nothing any more; see `Pulse.check`.
        """
        if self._model is not None:
            with _ending_when_out_of_memory():
                await self._pulse.check(self._model)

    async def describe(self) -> ModelCard | ServiceError:
        """The loaded model's card, or the error that kept the model from loading."""
        model = await self._ready_model()
        return model if isinstance(model, ServiceError) else model.card

    async def embed_files(self, root: str, files: list[SourceFile]) -> Block | ServiceError:
        """Settle every file; see `embed_job.FileEmbedder.embed_files`."""
        model = await self._ready_model()
        if isinstance(model, ServiceError):
            return model
        try:
            with _ending_when_out_of_memory():
                with self._metrics.decoding():
                    chunk = await asyncio.get_running_loop().run_in_executor(
                        self._callers, self._read, root, files, model
                    )
                block = chunk.block(await self._vectors(model, chunk.pixels), model.card.space_key)
        except ServiceError as error:  # too many open files, a broken device: the caller may repeat the call
            return error
        self._metrics.settled(block)
        return block

    def _read(self, root: str, files: list[SourceFile], model: "VisionModel") -> Chunk:
        return Chunk.of(self._reader, root, files, model.preprocessing, self._limits, self._readers)

    async def embed_images(self, images: list[bytes]) -> Embedded | ServiceError:
        """See `services.Embedder.embed_images`."""
        model = await self._ready_model()
        if isinstance(model, ServiceError):
            return model
        try:
            with _ending_when_out_of_memory():
                with self._metrics.decoding():
                    decoded = await asyncio.get_running_loop().run_in_executor(
                        self._callers, decode_uploads, images, model.preprocessing, self._limits, self._readers
                    )
                pixels = [image for image in decoded if not isinstance(image, Skip)]
                stacked = np.stack(pixels) if pixels else np.empty((0, 0, 0, 3), np.uint8)
                vectors = iter(await self._vectors(model, stacked))
        except ServiceError as error:
            return error
        self._metrics.count(embedded=len(pixels), skipped=len(decoded) - len(pixels))
        outcomes = [image if isinstance(image, Skip) else next(vectors) for image in decoded]
        return Embedded(model.card, outcomes)

    async def embed_texts(self, texts: list[str]) -> Embedded | ServiceError:
        """See `services.Embedder.embed_texts`."""
        model = await self._ready_model()
        if isinstance(model, ServiceError):
            return model
        with _ending_when_out_of_memory():
            try:
                # One thread computes images and texts, so that they do not fight over the cores.
                vectors, cut = await asyncio.get_running_loop().run_in_executor(
                    self._compute, self._pulse.texts, model, texts
                )
            except ServiceError as error:
                return error
        return Embedded(model.card, list(vectors), tuple(cut))

    async def _vectors(self, model: "VisionModel", pixels: Pixels) -> VectorArray:
        """(B, D) vectors of (B, S, S, 3) pixels, B ≥ 0; pixels are cut into batches, so that other calls get a turn."""
        if len(pixels) == 0:
            return np.empty((0, model.card.dimension), np.float32)
        size = self._policy.batch_images
        parts = [self._batcher.vectors(pixels[start : start + size]) for start in range(0, len(pixels), size)]
        return np.concatenate(await asyncio.gather(*parts))

    def _forward(self, pixels: Pixels) -> VectorArray:
        assert self._model is not None  # callers get the model before they ask for vectors
        with self._metrics.forward(len(pixels)):
            return self._pulse.vectors(self._model, pixels)


@contextmanager
def _ending_when_out_of_memory() -> Iterator[None]:
    """End the process when it runs out of memory, as the kernel would.

    For callers this is a crash like any other: they repeat the work on another replica, and an image that needs more
    memory than any replica has is found and skipped. An error would fail the whole job.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.critical("out of memory, this replica ends: %s", error)
        os._exit(1)


def application(settings: Settings, model_name: str, policy: Policy, *, min_replicas: int) -> Application:
    """The Serve application of one model."""
    deployment = serve.deployment(
        name=DEPLOYMENT,
        max_ongoing_requests=policy.max_ongoing,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=60,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=0.5,  # how soon Serve notices a killed replica
        autoscaling_config=AutoscalingConfig(
            min_replicas=min_replicas,
            initial_replicas=policy.initial_replicas if min_replicas else 1,
            max_replicas=policy.max_replicas,
            target_ongoing_requests=policy.target_ongoing,
            upscale_delay_s=3,
            downscale_delay_s=60,
            downscale_to_zero_delay_s=60,  # on a small machine, an idle model keeps the next model from starting
            look_back_period_s=5,
            # The default of 10 s leaves a second core idle for most of a short job. The option is deprecated in
            # favour of environment variables that Ray 2.60 does not read yet.
            metrics_interval_s=1,
        ),
        ray_actor_options={
            "num_cpus": policy.cpus_per_replica,
            "num_gpus": policy.gpus_per_replica,
        },
        logging_config=LoggingConfig(encoding="JSON", enable_access_log=False),
    )
    return deployment(DinoV2).bind(settings, model_name, policy)


def application_name(settings: Settings, model_name: str) -> str:
    """The name of the application that serves a model."""
    is_default = model_name in (settings.model, _resolved(settings.model))
    return APPLICATION if is_default else further_application_name(model_name)


def further_application_name(model_name: str) -> str:
    """The name of the application of a model that is not the service's default.

    It holds the end of the model's name, for people, and eight digits of a hash of the whole model name, because two
    folders may differ only in punctuation or far from the end.
    """
    slug = re.sub(r"[^A-Za-z0-9]+", "-", model_name)[-_SLUG_LENGTH:].strip("-")
    digest = hashlib.sha256(os.fsencode(model_name)).hexdigest()[:8]
    return f"{APPLICATION}-{slug}-{digest}"


def _resolved(model_name: str) -> str:
    """The model's canonical name, which jobs use; the setting may be a relative path."""
    try:
        return weights.resolve(model_name)
    except UnknownModel:
        return model_name


def is_application_name(name: str) -> bool:
    """Whether a Serve application with this name is one of ours."""
    return re.fullmatch(rf"{APPLICATION}(-[A-Za-z0-9-]*-[0-9a-f]{{8}})?", name) is not None


def ensure_application(settings: Settings, model_name: str) -> str:
    """The name of the application that serves a model; a missing application of a further model is deployed first.

    The call blocks for a round trip to the Serve controller. It never deploys the default model's application, which
    was deployed with the service.
    """
    name = application_name(settings, model_name)
    if name != APPLICATION and name not in serve.status().applications:
        target = application(settings, model_name, choose_policy(settings), min_replicas=0)
        options: dict[str, Any] = {"wait_for_applications_running": False}
        serve.run_many([serve.RunTarget(target=target, name=name, route_prefix=None)], **options)
    return name
