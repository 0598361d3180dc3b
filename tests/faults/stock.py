"""Datasets of imported vectors, whose images nobody opens: as large as a test wants them, and there in seconds."""

import io
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.album import Album, patiently
from tests.faults.service import Service
from tests.faults.wait import PATIENCE_S, until

DIMENSION = 384
"""Of DINOv2-small."""
N_SIMILAR = 5
N_PROBES = 3


def register_names(service: Service, name: str, n_rows: int) -> Album:
    """A dataset of names alone."""
    names = [f"{number:07d}.jpg" for number in range(n_rows)]
    manifest = service.roots / f"{name}.parquet"
    pq.write_table(pa.table({"file_name": names}), manifest)
    fields = {"name": name, "root": str(service.roots), "format": "manifest", "annotations": str(manifest)}
    answer = service.http.post("/datasets", json=fields)
    assert answer.status_code == 201, answer.text
    return Album(service, service.roots, answer.json()["id"], n_rows, dict.fromkeys(names, np.empty(0)))


def send_vectors(album: Album, vectors: np.ndarray) -> httpx.Response:
    """Import (N, D) vectors, a row for each name in order; the answer, which names a job if it is 202."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    file = io.BytesIO()
    table = pa.table({"file_name": list(album.vectors), "vector": column})
    pq.write_table(table, file, use_dictionary=False, compression="none")
    return httpx.post(
        f"{album.service.settings.url}{album.path}/import",
        params={"space_key": "made up", "model_name": "made up"},
        headers={"Content-Type": "application/vnd.apache.parquet"},
        content=file.getvalue(),
        timeout=PATIENCE_S,
    )


class Stock:
    """A large set, replaced again and again: in its n-th version every vector has moved on by n names."""

    def __init__(self, service: Service, n_rows: int) -> None:
        self._album = register_names(service, "stock", n_rows)
        self._names = list(self._album.vectors)
        rows = np.random.default_rng(0).standard_normal((n_rows, DIMENSION), np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._n_sent = 0
        self._versions: dict[str, int] = {}
        """The version of each acknowledged job."""
        self.replace()
        assert self._versions, "the first import was refused"

    def replace(self) -> None:
        """Send the next version, whatever comes of it; wait for its end if it was acknowledged."""
        self._n_sent += 1
        try:
            answer = send_vectors(self._album, np.roll(self._rows, -self._n_sent, axis=0))
        except httpx.HTTPError:
            return
        if answer.status_code != 202:
            assert answer.status_code in {409, 500, 503}, answer.text
            return
        job_id = answer.json()["job_id"]
        self._versions[job_id] = self._n_sent
        until(lambda: self._job(job_id)["status"] != "running", lambda: str(self._job(job_id)))
        assert self._job(job_id)["status"] == "complete", self._job(job_id)

    def check(self) -> None:
        """The set is the last that was acknowledged, or a later one; it is whole, and the right names are similar."""
        until(lambda: self._jobs_running() == 0)
        status = self._album.status()
        assert status["embedding_count"] == len(self._names)
        acknowledged = max(self._versions.values())
        probes = np.linspace(0, len(self._names) - 1, N_PROBES, dtype=int)
        found = [self._similar(probe) for probe in probes]
        # A version whose last row arrived takes its place, even if the writer died before that could be acknowledged.
        known = self._versions.get(status["job_id"])
        candidates = range(acknowledged + 1, self._n_sent + 1) if known is None else [known]
        assert known in (None, acknowledged), (status, self._versions)
        assert found in [[self._right(probe, version) for probe in probes] for version in candidates]

    def _similar(self, probe: int) -> list[str]:
        path = f"/datasets/{self._album.dataset_id}/similarity/{self._names[probe]}?limit={N_SIMILAR}"
        items = patiently(self._album.service.http, "GET", path).json()["items"]
        return [item["sample_id"] for item in items]

    def _right(self, probe: int, version: int) -> list[str]:
        row = (probe + version) % len(self._names)
        nearest = np.argsort(-(self._rows @ self._rows[row]))[: N_SIMILAR + 1]
        return [self._names[(other - version) % len(self._names)] for other in nearest if other != row][:N_SIMILAR]

    def _job(self, job_id: str) -> dict[str, Any]:
        return self._album.job(job_id)

    def _jobs_running(self) -> int:
        jobs = patiently(self._album.service.http, "GET", "/jobs").json()
        return sum(job["status"] == "running" and job["dataset_id"] == self._album.dataset_id for job in jobs)
