"""A dataset in a service whose every vector is known."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq

from serve_app.images.decode import ImageLimits, decode
from serve_app.sources.files import read_file
from tests.converted_models import CACHE_DIR
from tests.faults.opened_files import OpenedFiles
from tests.faults.service import Service
from tests.faults.wait import PATIENCE_S, until
from tests.faults.watching import Follower
from tests.ray.client import register


@dataclass
class Album:
    """A folder of distinct images, registered; `vectors` are the right ones once it was embedded without faults."""

    service: Service
    root: Path
    dataset_id: str
    n_images: int
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def register(cls, service: Service, root: Path, **fields: Any) -> "Album":
        n_images = sum(1 for path in root.rglob("*") if path.is_file())
        return cls(service, root, register(service.http, root, **fields), n_images)

    @property
    def path(self) -> str:
        return f"/datasets/{self.dataset_id}/embeddings"

    def status(self) -> dict[str, Any]:
        """The embedding status, waiting out an outage."""
        return patiently(self.service.http, "GET", f"{self.path}/status").json()

    def job(self, job_id: str) -> dict[str, Any]:
        """A job, waiting out an outage."""
        return patiently(self.service.http, "GET", f"/jobs/{job_id}").json()

    def generate(self, **fields: Any) -> str:
        """Begin to compute every vector anew, asking again while the service says 503; the job's id."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self.service.http.post(f"{self.path}/generate", json={"force": True} | fields)
            if answer.status_code != 503:
                break
            assert answer.headers["Retry-After"]
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.5)
        # 409: the call that was answered 503 had begun the job.
        assert answer.status_code in {202, 409}, answer.text
        job_id: str = answer.json()["job_id"]
        return job_id

    @contextmanager
    def half_way(self, opened: OpenedFiles, follower: Follower) -> Iterator[None]:
        """Wait until a job has opened half of the files, and freeze the replica while the block runs.

        Whatever the block does happens in the middle of the job, on a machine of any pace.
        """
        until(lambda: opened.counts().total() >= self.n_images // 2)
        with self.service.frozen("replica"):
            follower.await_processed(self.n_images // 2 - self.service.in_flight)
            yield

    def embed(self) -> dict[str, Any]:
        """Compute every vector and return the terminal event."""
        self.generate()
        return Follower(self.service.settings.url, self.dataset_id).start().end()

    def settle(self) -> None:
        """Wait for the end of whatever runs."""
        newest = patiently(self.service.http, "GET", "/jobs").json()[:1]
        if newest and newest[0]["status"] == "running":
            Follower(self.service.settings.url, self.dataset_id).start().end()

    def remember(self, model: str) -> None:
        """Take the stored vectors for the right ones, after comparing some with the model's own."""
        self.vectors = self.stored()
        names = sorted(self.vectors)[:: self.n_images // 6]
        for name, vector in zip(names, _embed_here(model, self.root, names), strict=True):
            assert cosine(self.vectors[name], vector) > 0.99999, name
            others = [other for other in names if other != name]
            assert max(cosine(self.vectors[other], vector) for other in others) < 0.999

    def exact(self) -> tuple[str, dict[str, bytes]]:
        """The job that made the vectors, and their bits (what invariant I8 compares in the database)."""
        return self.status()["job_id"], {name: vector.tobytes() for name, vector in self.stored().items()}

    def check(self) -> None:
        """Every sample has its own vector, once, all of one job that accounts for every sample."""
        stored = self.stored()
        assert sorted(stored) == sorted(self.vectors)
        wrong = [name for name, vector in stored.items() if not np.allclose(vector, self.vectors[name], atol=1e-3)]
        assert wrong == []
        status = self.status()
        job = self.job(status["job_id"])
        assert (job["status"], job["processed"], job["total"]) == ("complete", self.n_images, self.n_images)
        assert status["embedding_count"] == self.n_images

    def stored(self) -> dict[str, np.ndarray]:
        """The vectors of the export, by sample id."""
        answer = patiently(self.service.http, "GET", f"{self.path}/export")
        table = pq.read_table(io.BytesIO(answer.content))
        ids = table["sample_id"].to_pylist()
        assert len(set(ids)) == len(ids), "a sample is stored twice"
        return dict(zip(ids, table["vector"].to_numpy(zero_copy_only=False), strict=True))


def patiently(http: httpx.Client, method: str, path: str) -> httpx.Response:
    """A request that may be repeated, until it is answered 200."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = http.request(method, path)
            if answer.status_code == 200:
                return answer
            trouble = answer.text
        except httpx.HTTPError as error:
            trouble = repr(error)
        assert time.monotonic() < deadline, trouble
        time.sleep(0.2)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))


def _embed_here(model: str, root: Path, names: list[str]) -> np.ndarray:
    """(N, D) vectors of files by the model in this process."""
    from serve_app.embedding import loading

    vision = loading.load(Path(model), name="here", cache_dir=CACHE_DIR, device="cpu", threads=1)
    files = [read_file(str(root), name, max_bytes=10**7)[0] for name in names]
    return vision.vectors(np.stack([decode(data, vision.preprocessing, ImageLimits()) for data in files]))
