"""A synchronous client of the HTTP API with one method per route; `constellate.Constellate` adds longer steps.

This module owns paths, parameters and the types of answers; `wire` transports them. It knows nothing about terminals
and does not resume dropped streams.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast
from urllib.parse import quote

import httpx

from constellate.findings import Findings, Found, Labelled
from constellate.records import (
    ColumnInfo,
    DatasetInfo,
    JobInfo,
    JobKind,
    NeighbourInfo,
    Progress,
    SampleInfo,
    Started,
)
from constellate.vectors import Vectors
from constellate.wire import LONG_ANSWER_S, Wire, given

ExportFormat = Literal["parquet", "arrow", "csv", "coco", "yolo", "yolo-zip", "list"]


class Routes(Vectors, Findings):
    """Calls of the HTTP API; each raises `Unreachable` or `Refused`.

    `model` names one of a dataset's sets of vectors, as `embeddings` lists them; without it the set made last is meant.

    Args:
        url: the address at which the service listens.
        api_key: the key to send as a bearer token.
        transport: the transport of requests, by default the network.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._wire = Wire(self.url, api_key=api_key, transport=transport)
        self._request = self._wire.request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a thread that waits on a stream is woken and raises `RuntimeError`."""
        self._wire.close()

    def check(self) -> None:
        """Make sure that a Constellate service answers at the address.

        Raises:
            NothingThere: nobody listens.
            Unreachable: another program listens, or the service does not answer.
        """
        self._wire.check()

    def ready(self) -> None:
        """Return if the service can embed and write, and otherwise raise `Refused` (503) with the reason."""
        self._request("GET", "/readyz")

    def datasets(self) -> list[DatasetInfo]:
        """Every dataset, oldest first."""
        return cast(list[DatasetInfo], self._request("GET", "/datasets").json())

    def dataset(self, dataset_id: str) -> DatasetInfo:
        """The dataset with this id."""
        return cast(DatasetInfo, self._request("GET", f"/datasets/{dataset_id}").json())

    def register(self, name: str, root: Path | str) -> DatasetInfo:
        """Register a folder, file or URL. Raises `Refused` (409, with `dataset_id`) if the name is taken.

        More than 100,000 files are refused (409 `async_needed`): see `start_register`.
        """
        body = {"name": name, "root": str(root), "format": "auto"}
        return cast(DatasetInfo, self._request("POST", "/datasets", body=body, timeout_s=LONG_ANSWER_S).json())

    def start_register(self, name: str, root: Path | str, *, notify_url: str | None = None) -> Started:
        """Start registering a folder, file or URL; the dataset is there once the job is complete.

        Raises `Refused` (409) with `dataset_id` if the name is taken, and with `job_id` while it is being registered.
        """
        body = {"name": name, "root": str(root), "format": "auto", **given(notify_url=notify_url)}
        answer = self._request("POST", "/datasets", body=body, headers=_ASYNC, timeout_s=LONG_ANSWER_S)
        found = answer.json()
        return _begun(answer) or Started(str(found.get("id")), None)

    def start_rescan(self, dataset_id: str, *, notify_url: str | None = None) -> Started:
        """Start listing the dataset's files again. Raises `Refused` (409, with `job_id`) while a job runs."""
        path = f"/datasets/{dataset_id}/rescan"
        body = given(notify_url=notify_url)
        answer = self._request("POST", path, body=body or None, headers=_ASYNC, timeout_s=LONG_ANSWER_S)
        return _begun(answer) or Started(dataset_id, None)

    def rescan(self, dataset_id: str) -> dict[str, int]:
        """List the dataset's files again and return the numbers `added`, `changed` and `removed`.

        A dataset of more than 100,000 files is refused (409 `async_needed`): see `start_rescan`.
        """
        answer = self._request("POST", f"/datasets/{dataset_id}/rescan", timeout_s=LONG_ANSWER_S)
        return cast(dict[str, int], answer.json())

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset and its vectors, but not its image files. Raises `Refused` (409) while a job runs."""
        self._request("DELETE", f"/datasets/{dataset_id}")

    def samples(self, dataset_id: str, *, where: str | None = None, model: str | None = None) -> Iterator[SampleInfo]:
        """The dataset's images in listing order, or those that a filter chooses (`label = 'cat' AND width > 500`)."""
        return cast(
            Iterator[SampleInfo], self._wire.pages(f"/datasets/{dataset_id}/samples", given(where=where, model=model))
        )

    def columns(self, dataset_id: str) -> list[ColumnInfo]:
        """The columns that a filter may name, with what is in them."""
        return cast(list[ColumnInfo], self._request("GET", f"/datasets/{dataset_id}/columns").json())

    def put_columns(self, dataset_id: str, file: str | Path) -> dict[str, Any]:
        """Add or replace columns from a CSV, Parquet or Arrow file with `sample_id` or `file_name`.

        The answer counts the rows that were used (`matched`) and lists those that were not (`refused`).
        """
        path = f"/datasets/{dataset_id}/columns"
        with Path(file).open("rb") as stream:
            answer = self._request("PUT", path, content=stream, timeout_s=LONG_ANSWER_S)
        return cast(dict[str, Any], answer.json())

    def delete_column(self, dataset_id: str, column: str) -> None:
        """Delete a column; its samples keep everything else."""
        self._request("DELETE", f"/datasets/{dataset_id}/columns/{quote(column, safe='')}")

    def label(
        self,
        dataset_id: str,
        phrases: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        column: str = "zero_shot",
        where: str | None = None,
        model: str | None = None,
    ) -> Labelled:
        """Give each sample the phrase that fits it best and its score, as columns; return how often each was the best.

        `templates` are sentences with {} in the phrase's place. Raises `Refused` (409) for a model that takes no text.
        """
        body: dict[str, object] = {"phrases": list(phrases), "column": column}
        if templates is not None:
            body["templates"] = list(templates)
        path = f"/datasets/{dataset_id}/labels"
        answer = self._request(
            "POST", path, params=given(where=where, model=model), body=body, timeout_s=LONG_ANSWER_S
        ).json()
        return Labelled({found["phrase"]: found["count"] for found in answer["phrases"]}, answer.get("notices", []))

    def tag(self, /, dataset_id: str, tag: str, **choice: object) -> int:
        """Put a tag on samples and return how many did not have it.

        `choice` is `where`, `sample_ids`, `polygon` (coordinates of the map of `model`), or what several of them share.
        """
        return self._tag("POST", dataset_id, tag, choice)

    def untag(self, /, dataset_id: str, tag: str, **choice: object) -> int:
        """Take a tag off samples, or off all if there is no choice; return how many had it."""
        return self._tag("DELETE", dataset_id, tag, choice)

    def tags(self, dataset_id: str) -> dict[str, int]:
        """The dataset's tags with the number of samples that have each."""
        answer = self._request("GET", f"/datasets/{dataset_id}/tags").json()
        return {entry["value"]: entry["count"] for entry in answer}

    def jobs(self, *, limit: int = 100) -> list[JobInfo]:
        """At most `limit` jobs, newest first."""
        return cast(list[JobInfo], self._request("GET", "/jobs", params={"limit": limit}).json())

    def job(self, job_id: str) -> JobInfo:
        """The job with this id."""
        return cast(JobInfo, self._request("GET", f"/jobs/{job_id}").json())

    def cancel_job(self, job_id: str) -> None:
        """Cancel this job, of any kind. Raises `Refused` (409) if it is over."""
        self._request("POST", f"/jobs/{job_id}/cancel")

    def similar(
        self, dataset_id: str, sample_id: str, *, limit: int, where: str | None = None, model: str | None = None
    ) -> list[NeighbourInfo]:
        """The samples most similar to a sample of the dataset, best first; only those that a filter chooses."""
        path = f"/datasets/{dataset_id}/similarity/{quote(sample_id)}"
        answer = self._request("GET", path, params={"limit": limit, **given(where=where, model=model)})
        return cast(list[NeighbourInfo], answer.json()["items"])

    def search(
        self,
        dataset_id: str,
        image: str | Path | None = None,
        *,
        text: str | None = None,
        limit: int,
        where: str | None = None,
        model: str | None = None,
    ) -> Found[NeighbourInfo]:
        """The samples most similar to an image file, or to words, best first; only those that a filter chooses.

        Raises:
            ValueError: neither or both of `image` and `text` are given.
            Refused: for example (409) the model of the set takes no text.
        """
        if (image is None) == (text is None):
            raise ValueError("search by an image or by a text")
        path = f"/datasets/{dataset_id}/search"
        params: dict[str, str | float] = {"limit": limit, **given(where=where, model=model)}
        if image is None:
            found = self._request("POST", path, params=params, body={"text": text}).json()
            return Found(found["items"], notices=found.get("notices", []))
        with Path(image).open("rb") as stream:
            answer = self._request("POST", path, params=params, files={"file": (Path(image).name, stream)})
        return Found(answer.json()["items"])

    def export(
        self,
        dataset_id: str,
        target: str | Path,
        *,
        format: ExportFormat = "parquet",
        where: str | None = None,
        with_vectors: bool = False,
        model: str | None = None,
    ) -> None:
        """Write the dataset, or what a filter chooses of it, to a file; a failed call leaves no partial file.

        "parquet" and "arrow" have vectors and map, "csv" columns and tags (vectors too, if asked for), "coco" the
        entries of the COCO file or labels as categories, "yolo-zip" the boxes of a COCO file as YOLO takes them,
        "yolo" a path in each line, "list" a name below the root.
        """
        params = {"format": str(format), **given(where=where, model=model)}
        if with_vectors and format not in ("parquet", "arrow"):  # these always have them
            params["with_vectors"] = "true"
        part = "embeddings/export" if format in ("parquet", "arrow") else "export"
        self._wire.download(f"/datasets/{dataset_id}/{part}", Path(target), params)

    def events(self, dataset_id: str, kind: JobKind, *, last_event: str = "") -> Iterator[Progress]:
        """The progress stream of a dataset over one connection; it ends without an error if the connection fails.

        Most callers should use `following.follow`.
        """
        tail = {"reduce": "embeddings/reduce/progress", "graph": "graph/progress"}.get(kind, "embeddings/progress")
        path = f"/datasets/{dataset_id}/{tail}"
        for event in self._wire.events(path, last_event):
            if event.event == "progress":
                yield Progress.of(json.loads(event.data), event_id=event.id)

    def job_events(self, job_id: str, *, last_event: str = "") -> Iterator[Progress]:
        """The progress stream of one job, as `events`."""
        for event in self._wire.events(f"/jobs/{job_id}/progress", last_event):
            if event.event == "progress":
                yield Progress.of(json.loads(event.data), event_id=event.id)

    def _tag(self, method: str, dataset_id: str, tag: str, choice: Mapping[str, object]) -> int:
        path = f"/datasets/{dataset_id}/tags/{quote(tag, safe='')}"
        params = {"model": str(choice["model"])} if "model" in choice else {}
        body = {name: value for name, value in choice.items() if name != "model"}
        return int(self._request(method, path, params=params, body=body, timeout_s=LONG_ANSWER_S).json()["changed"])


_ASYNC = {"Prefer": "respond-async"}


def _begun(answer: httpx.Response) -> Started | None:
    """The job that a service began; None if it did the work at once, as RFC 7240 allows."""
    if answer.status_code != httpx.codes.ACCEPTED:
        return None
    started = answer.json()
    return Started(str(started["dataset_id"]), str(started["job_id"]))
