"""People and programs that send single images to `POST /v1/embeddings` of a running service."""

import asyncio
import base64
import itertools
import statistics
import time
from pathlib import Path

import httpx

from benchmarks.contenders import image_files
from constellate import Constellate

ROUTE = "/v1/embeddings"
PATIENCE_S = 120.0


def bodies(model: str, images: Path) -> list[dict[str, str]]:
    """One request body an image, for a default model of this name."""
    return [
        {
            "model": model,
            "input": "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode(),
            "encoding_format": "base64",
        }
        for file in image_files(images)
    ]


def single_p50_ms(client: Constellate, requests: list[dict[str, str]], n_requests: int = 40) -> float:
    """Median milliseconds of a request, one after another over one connection."""
    times_s = []
    with httpx.Client(base_url=client.url, timeout=PATIENCE_S) as http:
        for body in itertools.islice(itertools.cycle(requests), n_requests):
            begin = time.perf_counter()
            http.post(ROUTE, json=body).raise_for_status()
            times_s.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times_s)


def concurrent_rate(
    client: Constellate, requests: list[dict[str, str]], *, callers: int = 64, n_requests: int
) -> float:
    """Images/s of so many callers, each of which sends its next image when it has the vector of the one before."""

    async def measure() -> float:
        todo = itertools.islice(itertools.cycle(requests), n_requests)
        limits = httpx.Limits(max_connections=callers)
        async with httpx.AsyncClient(base_url=client.url, timeout=PATIENCE_S, limits=limits) as http:

            async def call() -> None:
                for body in todo:
                    (await http.post(ROUTE, json=body)).raise_for_status()

            begin = time.perf_counter()
            await asyncio.gather(*[call() for _ in range(callers)])
            return n_requests / (time.perf_counter() - begin)

    return asyncio.run(measure())
