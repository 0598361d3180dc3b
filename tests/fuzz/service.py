"""The service that is fuzzed: the real application, store, job loop, decoder and neighbours, on loopback; only the
model is a fake. It holds datasets in every state, so that generated requests find something, and counts its answers.
"""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np

from serve_app.config import Settings
from serve_app.embedding.chunk import Chunk, decode_uploads
from serve_app.images.decode import ImageLimits, Preprocessing
from serve_app.records import Skip
from serve_app.services import Embedded
from serve_app.sources.reading import Reader
from tests.live_service import FakeFileEmbedder, LiveService
from tests.ports import free_port
from tests.ray.photographs import make_folder

API_KEY = "correct-horse-battery-staple"
BUSY = "busy"
"""A folder that is never embedded: its job runs for as long as the service does."""


class DecodingEmbedder(FakeFileEmbedder):
    """Reads and decodes as a replica does; the vector is a function of the pixels."""

    def __init__(self, model, settings):
        super().__init__(model)
        self._reader = Reader(settings)
        self._threads = ThreadPoolExecutor(2)

    async def embed_images(self, model, images):
        self._check(model)
        decoded = await asyncio.to_thread(decode_uploads, images, Preprocessing(), ImageLimits(), self._threads)
        vectors = [image if isinstance(image, Skip) else self.model.vector(image.tobytes()) for image in decoded]
        return Embedded(self.model.card, vectors)

    async def embed_files(self, model, root, tasks):
        if Path(root).name == BUSY:
            await asyncio.Event().wait()
        self._check(model)
        chunk = await asyncio.to_thread(
            Chunk.of, self._reader, root, tasks, Preprocessing(), ImageLimits(), self._threads
        )
        vectors = [self.model.vector(pixels.tobytes()) for pixels in chunk.pixels]
        stacked = np.stack(vectors) if vectors else np.empty((0, self.model.card.dimension), np.float32)
        return chunk.block(stacked, self.model.card.space_key)


class Tally:
    """An application that counts what another one answers, by method, path and status."""

    def __init__(self, app):
        self._app = app
        self.answers = Counter()

    async def __call__(self, scope, receive, send):
        async def counted(message):
            if message["type"] == "http.response.start":
                self.answers[scope["method"], scope["path"], message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted)


class FuzzedService(LiveService):
    """A live service with an API key and `base/images` as its dataset root."""

    def __init__(self, base):
        self.roots = base / "images"
        self.roots.mkdir(parents=True)
        super().__init__(
            Settings(data_dir=base / "state", dataset_roots=(self.roots,), port=free_port(), api_key=API_KEY)
        )
        self.embedder = DecodingEmbedder(self.embedder.model, self.settings)
        self.tally = None

    def application(self, services):
        self.tally = Tally(super().application(services))
        return self.tally

    @property
    def n_requests(self):
        return sum(self.tally.answers.values())

    @property
    def by_status(self):
        counts = Counter()
        for (_, _, status), n in self.tally.answers.items():
            counts[status] += n
        return counts

    @property
    def failures(self):
        """What was answered with a 5xx, whoever asked."""
        return [answer for answer in self.tally.answers if answer[2] >= 500]


class Seeds(NamedTuple):
    """What generated requests may find."""

    datasets: list[str]
    samples: list[str]
    jobs: list[str]
    folders: list[str]


def seed(service):
    """Fill a running service: a dataset with a map, one with vectors, one with none, one whose job runs."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=service.settings.url, headers=headers, timeout=240) as http:
        ids = {name: _registered(http, service.roots / name) for name in ("mapped", "embedded", "bare", BUSY)}
        for name in ("mapped", "embedded"):
            _run(http, ids[name], "generate", "progress")
        _run(http, ids["mapped"], "reduce", "reduce/progress")
        _run(http, ids[BUSY], "generate", None)
        for i in range(3):
            make_folder(service.roots / f"spare-{i}", n_images=2)
        samples = http.get(f"/datasets/{ids['mapped']}/samples").json()["items"]
        jobs = http.get("/jobs").json()
    folders = [str(path) for path in sorted(service.roots.iterdir())]
    return Seeds(list(ids.values()), [sample["id"] for sample in samples], [job["id"] for job in jobs], folders)


def _registered(http, root):
    make_folder(root, n_images=6)
    (root / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot one")
    (root / "cat" / "copy.png").write_bytes((root / "cat" / "0000.png").read_bytes())
    answer = http.post("/datasets", json={"name": root.name, "root": str(root)})
    answer.raise_for_status()
    return answer.json()["id"]


def _run(http, dataset_id, verb, stream):
    http.post(f"/datasets/{dataset_id}/embeddings/{verb}").raise_for_status()
    if stream is not None:
        assert '"status": "complete"' in http.get(f"/datasets/{dataset_id}/embeddings/{stream}").text
