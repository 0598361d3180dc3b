"""One object decides how work is cut and spread; it depends on the machine and the settings.

CPUs and GPUs need different sizes (docs/decisions/0003-batching.md; the figures are in docs/measurements.md). On a CPU,
one replica per core with one thread is faster than one replica with all threads. On a GPU, one replica computes large
batches, and decoding is spread over the cores.
"""

import math
import os
from dataclasses import dataclass

from serve_app.config import Settings

SMALL_ACTOR_CPUS = 0.1
"""The CPU share of each ingress replica, the writer, JobRunner, Reducer and Searcher."""

INGRESS_REPLICAS = 2
"""If one dies, the other answers; with a single replica, callers waited four to eight seconds for the next one."""

N_SMALL_ACTORS = 4 + INGRESS_REPLICAS

MAX_INITIAL_REPLICAS = 4
"""CPU replicas at the start of a cluster, whose autoscaler starts others; on one machine, all start and stay."""

FURTHER_MODELS = 2
"""So many models beside the default one start at once on a CPU; another waits a minute, until an idle one has ended."""

MAX_ONGOING_CALLS = 64
"""The limit of a replica; with a low limit, a caller's router finds every replica full and sleeps before it retries."""

MAX_REQUEST_IMAGES = 999
"""Starlette's form parser accepts 1000 parts, and answers a larger form with 400 and not with 413."""
CPU_REQUEST_IMAGES = 32
"""The limit for each replica: the largest model takes two seconds per image on a core, and callers wait two minutes."""


MAX_PAIRWISE_ROWS = 30_000
"""Up to so many vectors, all pairs are compared while the caller waits, some 15 s of a core; more need a graph."""


def usable_cores() -> int:
    """The cores that this process may use; Ray's share of an actor and its `OMP_NUM_THREADS` do not limit them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Policy:
    """Sizes for one cluster.

    One call to a replica has `chunk_images`, one forward pass at most `batch_images`, and a request at most
    `request_images`. All jobs together have `window` chunks under way. Serve scales on these calls, so the window must
    be larger than `max_replicas * target_ongoing`. `min_replicas` of the default model stay when nothing asks them.
    """

    max_replicas: int
    min_replicas: int
    initial_replicas: int
    cpus_per_replica: float
    gpus_per_replica: float
    compute_threads: int
    decode_threads: int
    chunk_images: int
    batch_images: int
    target_ongoing: int
    max_ongoing: int
    request_images: int

    @classmethod
    def choose(cls, settings: Settings, *, n_cpus: float, n_gpus: float, n_nodes: int = 1) -> "Policy":
        """Choose the sizes for a cluster of `n_cpus` logical CPUs and `n_gpus` GPUs.

        An idle replica takes memory and no CPU. On one machine without GPUs all replicas therefore stay, and a job
        waits for none of them. A GPU, or a node that is paid for, is given back.

        Args:
            settings: `device`, `max_replicas`, `min_replicas` and `gpus_per_replica` take precedence over the machine.
            n_cpus: the logical CPUs on which Ray schedules.
            n_gpus: the GPUs on which Ray schedules.
            n_nodes: the machines of the cluster.
        """
        # Both settings together ask for GPUs, even those of nodes that the cluster starts only on a replica's demand.
        may_use_gpus = settings.device in ("auto", "cuda") and settings.gpus_per_replica != 0
        expects_gpus = settings.device == "cuda" and bool(settings.gpus_per_replica)
        cores = max(1, math.floor(n_cpus))
        if expects_gpus or (n_gpus >= 1 and may_use_gpus):
            return cls._on_gpus(settings, cores, n_gpus)
        return cls._on_cpus(settings, cores, n_nodes)

    @classmethod
    def _on_gpus(cls, settings: Settings, cores: int, n_gpus: float) -> "Policy":
        share = 1.0 if settings.gpus_per_replica is None else settings.gpus_per_replica
        replicas = settings.max_replicas or max(1, math.floor(n_gpus / share))
        stay = min(replicas, settings.min_replicas or 1)
        return cls(
            max_replicas=replicas,
            min_replicas=stay,
            initial_replicas=stay,
            cpus_per_replica=_share_of_cores(cores, replicas, stay),
            gpus_per_replica=share,
            compute_threads=1,
            decode_threads=max(2, cores // replicas),
            chunk_images=32,
            batch_images=128,
            target_ongoing=6,
            max_ongoing=MAX_ONGOING_CALLS,
            request_images=MAX_REQUEST_IMAGES,
        )

    @classmethod
    def _on_cpus(cls, settings: Settings, cores: int, n_nodes: int) -> "Policy":
        replicas = settings.max_replicas or cores
        stay = min(replicas, settings.min_replicas or (replicas if n_nodes == 1 else 1))
        return cls(
            max_replicas=replicas,
            min_replicas=stay,
            initial_replicas=max(stay, min(replicas, MAX_INITIAL_REPLICAS)),
            cpus_per_replica=_share_of_cores(cores, replicas, stay),
            gpus_per_replica=0.0,
            compute_threads=max(1, cores // replicas),
            decode_threads=2,
            chunk_images=4,
            batch_images=4,
            target_ongoing=2,
            max_ongoing=MAX_ONGOING_CALLS,
            request_images=min(MAX_REQUEST_IMAGES, CPU_REQUEST_IMAGES * replicas),
        )

    @property
    def window(self) -> int:
        """The number of chunks that all jobs together may have under way."""
        return math.ceil(self.max_replicas * self.target_ongoing * 1.25)


def _share_of_cores(cores: int, replicas: int, stay: int) -> float:
    """The logical CPUs of a replica; all replicas, one replica of each further model, and the small actors fit in.

    Replicas that stay hold their share while they are idle, so a further model gets as many replicas beside them.
    """
    free = max(0.4, cores - N_SMALL_ACTORS * SMALL_ACTOR_CPUS)
    return max(0.1, min(0.9, math.floor(100 * free / (replicas + max(FURTHER_MODELS, stay))) / 100))
