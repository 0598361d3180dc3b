"""Finds out whether the service works now, by embedding one image and writing one row.

A process that answers need not be a service that works (infinity#483, tokenjam#700: only the health check worked).
"""

import asyncio
import contextvars
import io
import logging
import math
import time
from collections.abc import Awaitable, Callable
from functools import cache

import numpy as np
from PIL import Image

from serve_app.errors import ServiceError
from serve_app.records import Skip
from serve_app.services import Services
from serve_app.store.operations import Health

logger = logging.getLogger(__name__)

KEPT_S = 5.0
"""How long an answer is reused, so that a load balancer that asks often does not load the model."""
PATIENCE_S = 5.5
"""A little longer than the timeout of a store call, so that the store's own reason is reported."""
BUSY_S = 60.0
"""How long a good answer holds while the next probe is under way: a probe may have to wait behind a job's images."""


class Probe:
    """One probe of one component. It never runs twice at once, and its answer is reused for `KEPT_S`."""

    def __init__(
        self, name: str, ask: Callable[[], Awaitable[str | None]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._ask = ask
        self._clock = clock
        self._asking: asyncio.Task[str | None] | None = None
        self._answered_at = 0.0
        self._good_until = -math.inf

    async def reason(self) -> str | None:
        """The reason why the component is not ready, or None if it is; the call waits at most `PATIENCE_S`."""
        is_stale = self._clock() - self._answered_at >= KEPT_S
        if self._asking is None or (self._asking.done() and is_stale):
            was_good = self._asking is not None and self._asking.result() is None
            self._good_until = self._clock() + BUSY_S if was_good else -math.inf
            # The task has its own context: Serve cancels calls made in a request's context when the client leaves.
            name = f"probe-{self._name}"
            self._asking = asyncio.create_task(self._answer(), name=name, context=contextvars.Context())
        await asyncio.wait({self._asking}, timeout=PATIENCE_S)
        if self._asking.done():
            return self._asking.result()
        return None if self._clock() < self._good_until else f"no answer within {PATIENCE_S:.0f} s"

    async def _answer(self) -> str | None:
        try:
            return await self._ask()
        except ServiceError as error:
            return f"{error.code}: {error.detail}"
        except asyncio.CancelledError:
            return "the probe was cut short; the next one tells"
        except Exception:
            logger.exception("the readiness probe of %s failed", self._name)
            return "the probe failed; the service's log has the reason"
        finally:
            self._answered_at = self._clock()


class Readiness:
    """The probes of one process. `warnings` are the suspected losses of data that the store can work with."""

    def __init__(self, find_services: Callable[[], Services], clock: Callable[[], float] = time.monotonic) -> None:
        self.warnings: list[str] = []
        self._find_services = find_services
        self._probes = {"model": Probe("model", self._embed, clock), "store": Probe("store", self._write, clock)}

    async def reasons(self) -> dict[str, str]:
        """The reasons why the service is not ready, by component; empty if it is ready."""
        answers = await asyncio.gather(*(probe.reason() for probe in self._probes.values()))
        return {name: reason for name, reason in zip(self._probes, answers, strict=True) if reason is not None}

    async def _embed(self) -> str | None:
        services = self._find_services()
        [vector] = (await services.embedder.embed_images(services.settings.model, [_image()])).outcomes
        if isinstance(vector, Skip):
            return f"the probe image was refused: {vector.detail} ({vector.reason})"
        return None if np.isfinite(vector).all() else "the probe image has a vector that is not finite"

    async def _write(self) -> str | None:
        self.warnings = await self._find_services().writer.ask(Health.check)
        return None


@cache
def _image() -> bytes:
    """A JPEG of 256 × 256 pixels; it takes the same path to a vector as any photograph."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
