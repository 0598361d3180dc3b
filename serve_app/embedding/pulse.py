"""Whether a loaded model still computes, told from its own passes, and from a blank image where they say too little.

A GPU that has had an illegal access fails every later pass of its process; only another process helps. This module
knows neither Ray nor any engine. Letters for shapes: B images, S pixels along a side, D dimension of a vector.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from numpy.typing import NDArray

from serve_app.embedding.model import VisionModel, blank
from serve_app.errors import ModelUnavailable, ServiceError, Unavailable
from serve_app.records import VectorArray

R = TypeVar("R")

log = logging.getLogger("constellate.embedder")

PROOF_S = 60.0
"""A pass shows for this long that the device works. An idle replica spends one blank image a minute on the question."""

BROKEN = "the device of a replica has stopped computing, and the replica is replaced; try again"

OUT_OF_MEMORY = ("DefaultCPUAllocator", "bad_alloc")
"""What PyTorch's and OpenVINO's errors say when there is no memory left."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an engine, numpy or Python had no memory left."""
    if isinstance(error, RuntimeError):
        return any(text in str(error) for text in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


class Pulse:
    """Runs the passes of one model in one thread, and remembers what became of them.

    Args:
        thread: computes; passes never overlap.
        clock: seconds that never go back.
    """

    def __init__(self, thread: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._thread = thread
        self._clock = clock
        self._is_computing = False
        self._proved_at = clock()
        self._is_broken = False

    def vectors(self, model: VisionModel, images: NDArray[Any]) -> VectorArray:
        """(B, D) vectors of (B, S, S, 3) pixels; call it in the thread.

        Raises:
            Unavailable: the model fails at a blank image as well, so these images are not to blame.
            ModelUnavailable: the GPU has too little memory for a single image.
            Exception: what the model raised at these images, while it computes a blank one.
        """
        return self._watched(model, lambda: model.vectors(images))

    def texts(self, model: VisionModel, texts: list[str]) -> tuple[VectorArray, list[int]]:
        """(B, D) vectors of texts, and the places of those that were cut; call it in the thread.

        Raises:
            NoTextTower: the model takes no text.
            InvalidRequest: a text cannot be embedded.
            Unavailable, ModelUnavailable, Exception: as `vectors`.
        """
        return self._watched(model, lambda: model.text().vectors(texts))

    def _watched(self, model: VisionModel, work: Callable[[], R]) -> R:
        self._is_computing = True
        try:
            return self._passed(work)
        except ServiceError:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                self._prove(model)
            raise
        finally:
            self._is_computing = False

    async def check(self, model: VisionModel) -> None:
        """Return if the model computes, or has just computed; the check never waits behind a queue of passes.

        Raises:
            Unavailable: the model fails at a blank image.
        """
        if self._is_broken:
            raise Unavailable(BROKEN)
        if not self._is_computing and self._clock() - self._proved_at > PROOF_S:
            with contextlib.suppress(ModelUnavailable):  # other processes of the GPU have its memory for now
                await asyncio.get_running_loop().run_in_executor(self._thread, self._prove, model)

    def _prove(self, model: VisionModel) -> None:
        """Compute a blank image. Raises `Unavailable` if that fails."""
        try:
            self._passed(lambda: model.vectors(blank(model.preprocessing, 1)))
        except Exception as error:
            if isinstance(error, ModelUnavailable) or is_out_of_memory(error):
                raise
            log.exception("the model fails at a blank image")
            self._is_broken = True
            raise Unavailable(BROKEN) from error

    def _passed(self, work: Callable[[], R]) -> R:
        result = work()
        self._proved_at = self._clock()
        self._is_broken = False
        return result
