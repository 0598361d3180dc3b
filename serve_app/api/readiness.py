"""Whether the service can do its work now, found out by doing a little of it: embed an image, write a row.

A process that answers is not a service that works (infinity#483, tokenjam#700: health green, everything else dead).
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
"""How long an answer is given again: a load balancer that asks often must not load the model."""
PATIENCE_S = 5.5
"""A little longer than a store call may take, so that its own reason is told."""
BUSY_S = 60.0
"""How long a good answer stands while the next one is awaited: behind a job's images a probe takes its turn."""


class Probe:
    """One question to one component. Never asked twice at once; its answer is kept for `KEPT_S`."""

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
        """Why the component is not ready, None when it is; waits at most `PATIENCE_S`."""
        is_stale = self._clock() - self._answered_at >= KEPT_S
        if self._asking is None or (self._asking.done() and is_stale):
            was_good = self._asking is not None and self._asking.result() is None
            self._good_until = self._clock() + BUSY_S if was_good else -math.inf
            # In a context of its own: Serve cancels the calls made in the context of a request whose client leaves.
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
    """The probes of one process. `warnings` is what the store finds amiss and can work with."""

    def __init__(self, find_services: Callable[[], Services], clock: Callable[[], float] = time.monotonic) -> None:
        self.warnings: list[str] = []
        self._find_services = find_services
        self._probes = {"model": Probe("model", self._embed, clock), "store": Probe("store", self._write, clock)}

    async def reasons(self) -> dict[str, str]:
        """Why the service is not ready, by component; empty when it is."""
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
    """A JPEG of 256 × 256 pixels: what any photograph goes through on its way to a vector."""
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
