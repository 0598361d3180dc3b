"""What the cluster tests do over HTTP, in their words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse

from tests.faults.wait import PATIENCE_S

TERMINAL = {"complete", "error", "cancelled"}


def register(http: httpx.Client, root: Path, **fields: Any) -> str:
    """Register a folder under its own name and return the dataset's id."""
    answer = http.post("/datasets", json={"name": root.name, "root": str(root)} | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def generate(http: httpx.Client, dataset_id: str, **fields: Any) -> str:
    """Start an embedding job and return its id."""
    answer = http.post(f"/datasets/{dataset_id}/embeddings/generate", json=fields)
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def follow(http: httpx.Client, dataset_id: str, kind: str = "progress") -> Iterator[dict[str, Any]]:
    """The events of a progress stream, the terminal one included."""
    with connect_sse(http, "GET", f"/datasets/{dataset_id}/embeddings/{kind}", timeout=PATIENCE_S) as source:
        for event in source.iter_sse():
            assert event.event == "progress"
            yield {"id": event.id} | json.loads(event.data)


def finish(http: httpx.Client, dataset_id: str, kind: str = "progress") -> dict[str, Any]:
    """Follow a job to its end and return the last event."""
    return list(follow(http, dataset_id, kind))[-1]


def embed(http: httpx.Client, root: Path, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Register a folder, embed it, and return the dataset's id and the terminal event."""
    dataset_id = register(http, root)
    generate(http, dataset_id, **fields)
    return dataset_id, finish(http, dataset_id)


def reduce(http: httpx.Client, dataset_id: str, **parameters: Any) -> dict[str, Any]:
    """Compute the map and return the terminal event."""
    answer = http.post(f"/datasets/{dataset_id}/embeddings/reduce", json=parameters)
    assert answer.status_code == 202, answer.text
    return finish(http, dataset_id, "reduce/progress")


def export_table(http: httpx.Client, dataset_id: str) -> Any:
    """The dataset as a pyarrow table, through the Parquet export."""
    import io

    import pyarrow.parquet as pq

    answer = http.get(f"/datasets/{dataset_id}/embeddings/export", params={"format": "parquet"})
    assert answer.status_code == 200, answer.text
    return pq.read_table(io.BytesIO(answer.content))
