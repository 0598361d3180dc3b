"""One object decides how work is cut and spread, from the machine and the settings.

CPU and GPU are different machines (docs/decisions/0003-batching.md; the figures are in docs/measurements.md).
On a CPU one replica a core with one thread each beats one replica with all threads; on a GPU one replica feeds
large batches and decoding is spread over the cores.
"""

import math
from dataclasses import dataclass

from serve_app.config import Settings

SMALL_ACTOR_CPUS = 0.1
"""Each ingress, the writer, JobRunner, Reducer and Searcher claim this much."""

INGRESS_REPLICAS = 2
"""One dies, the other answers: with a single one callers waited four to eight seconds for its successor."""

N_SMALL_ACTORS = 4 + INGRESS_REPLICAS

MAX_INITIAL_REPLICAS = 4
"""CPU replicas at start: the first job of a fresh service finds every core of a laptop in use. 0.6 GB each."""

FURTHER_MODELS = 2
"""Models beside the default one that start at once on a CPU; the next waits a minute, until an idle one has left."""

MAX_ONGOING_CALLS = 64
"""By replica: with few, the router of a caller finds every replica full and sleeps before it tries again."""

MAX_REQUEST_IMAGES = 999
"""Starlette's form parser takes 1000 parts and answers one more with a 400 instead of a 413."""
CPU_REQUEST_IMAGES = 32
"""By replica. The largest model needs about two seconds an image on a core, and callers wait for two minutes."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Sizes for one cluster.

    `chunk_images` travel in one call to a replica, at most `batch_images` in one forward pass, and
    `window` chunks are in flight over all jobs: the window is also the autoscaling signal, so it must ask
    for more than `max_replicas * target_ongoing`. A request that waits for its vectors holds at most
    `request_images`.
    """

    max_replicas: int
    initial_replicas: int
    cpus_per_replica: float
    gpus_per_replica: float
    torch_threads: int
    decode_threads: int
    chunk_images: int
    batch_images: int
    target_ongoing: int
    max_ongoing: int
    request_images: int

    @classmethod
    def choose(cls, settings: Settings, *, n_cpus: float, n_gpus: float) -> "Policy":
        """Choose for a cluster of `n_cpus` logical CPUs and `n_gpus` GPUs.

        Args:
            settings: `device`, `max_replicas` and `gpus_per_replica` override the machine.
            n_cpus: logical CPUs Ray schedules on.
            n_gpus: GPUs Ray schedules on.
        """
        cores = max(1, math.floor(n_cpus))
        # Whoever states both means GPUs, also those of nodes that the cluster starts only when a replica asks for one.
        expects_gpus = settings.device == "cuda" and bool(settings.gpus_per_replica)
        if expects_gpus or (n_gpus >= 1 and settings.device in ("auto", "cuda")):
            share = 1.0 if settings.gpus_per_replica is None else settings.gpus_per_replica
            replicas = settings.max_replicas or max(1, math.floor(n_gpus / share) if share else int(n_gpus))
            decode_threads = max(2, cores // replicas)
            return cls(
                max_replicas=replicas,
                initial_replicas=1,
                cpus_per_replica=_share_of_cores(cores, replicas),
                gpus_per_replica=share,
                torch_threads=1,
                decode_threads=decode_threads,
                chunk_images=32,
                batch_images=128,
                target_ongoing=6,
                max_ongoing=MAX_ONGOING_CALLS,
                request_images=MAX_REQUEST_IMAGES,
            )
        replicas = settings.max_replicas or cores
        return cls(
            max_replicas=replicas,
            initial_replicas=min(replicas, MAX_INITIAL_REPLICAS),
            cpus_per_replica=_share_of_cores(cores, replicas),
            gpus_per_replica=0.0,
            torch_threads=max(1, cores // replicas),
            decode_threads=2,
            chunk_images=4,
            batch_images=4,
            target_ongoing=2,
            max_ongoing=MAX_ONGOING_CALLS,
            request_images=min(MAX_REQUEST_IMAGES, CPU_REQUEST_IMAGES * replicas),
        )

    @property
    def window(self) -> int:
        """Chunks in flight over all jobs."""
        return math.ceil(self.max_replicas * self.target_ongoing * 1.25)


def _share_of_cores(cores: int, replicas: int) -> float:
    """Logical CPUs of a replica, so that all replicas, one each of two further models and the small actors fit."""
    free = max(0.4, cores - N_SMALL_ACTORS * SMALL_ACTOR_CPUS)
    return max(0.1, min(0.9, math.floor(100 * free / (replicas + FURTHER_MODELS)) / 100))
