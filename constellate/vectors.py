"""The calls that make a dataset's vectors and maps, and read them: a part of `Routes`."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import cast

import httpx

from constellate.records import EmbeddingsInfo, PointInfo, SkipInfo
from constellate.wire import LONG_ANSWER_S, Wire, given


class Vectors:
    """A part of `Routes`; each call is about the set of `model`, or the one made last.

    What starts a job returns the job's id.
    """

    _wire: Wire
    _request: Callable[..., httpx.Response]

    def generate(
        self, dataset_id: str, *, model_name: str | None = None, force: bool = False, notify_url: str | None = None
    ) -> str:
        """Start embedding and return the job's id; `notify_url` is told when it ends.

        Raises `Refused` (409, with `job_id`) while a job runs.
        """
        body = {"force": force, **given(model_name=model_name, notify_url=notify_url)}
        return self._started(f"/datasets/{dataset_id}/embeddings/generate", body)

    def reduce(
        self, dataset_id: str, *, redraw: bool = False, notify_url: str | None = None, model: str | None = None
    ) -> str:
        """Start the 2D map and return the job's id; `notify_url` is told when it ends.

        Images that the last map has stay where they are, unless `redraw` lays out all of them anew.
        Raises `Refused` (409, with `job_id`) while a job runs.
        """
        body = {"redraw": redraw, **given(notify_url=notify_url)}
        return self._started(f"/datasets/{dataset_id}/embeddings/reduce", body, model)

    def graph(self, dataset_id: str, *, k: int = 15, notify_url: str | None = None, model: str | None = None) -> str:
        """Start finding `k` neighbours of every vector, which questions about large sets need; returns the job's id.

        `notify_url` is told when the job ends.
        """
        return self._started(f"/datasets/{dataset_id}/graph", {"k": k, **given(notify_url=notify_url)}, model)

    def import_vectors(
        self,
        dataset_id: str,
        file: str | Path,
        *,
        space_key: str | None = None,
        model_name: str | None = None,
        notify_url: str | None = None,
    ) -> str:
        """Send vectors made elsewhere, as Parquet or Arrow, and return the job's id.

        `space_key` and `model_name` may be left out if the file states them, as exports do. Raises `Refused` (422) if
        the file is not usable, and (409, with `job_id`) while a job runs.
        """
        with Path(file).open("rb") as stream:
            answer = self._request(
                "POST",
                f"/datasets/{dataset_id}/embeddings/import",
                params=given(space_key=space_key, model_name=model_name, notify_url=notify_url),
                content=stream,
                timeout_s=LONG_ANSWER_S,
            )
        return str(answer.json()["job_id"])

    def cancel(self, dataset_id: str) -> None:
        """Cancel the dataset's running job. Raises `Refused` (409) if no job runs."""
        self._request("POST", f"/datasets/{dataset_id}/embeddings/cancel")

    def embeddings(self, dataset_id: str, *, model: str | None = None) -> EmbeddingsInfo:
        """The state of a set of vectors and its map, and the list of the dataset's sets."""
        path = f"/datasets/{dataset_id}/embeddings/status"
        return cast(EmbeddingsInfo, self._request("GET", path, params=given(model=model)).json())

    def delete_embeddings(self, dataset_id: str, model: str) -> None:
        """Delete a dataset's set of a model with its map. Raises `Refused`: 404 where there is none, 409 in a job."""
        self._request("DELETE", f"/datasets/{dataset_id}/embeddings", params={"model": model})

    def skipped(self, dataset_id: str) -> Iterator[SkipInfo]:
        """The images or rows that the last embed or import job skipped."""
        return cast(Iterator[SkipInfo], self._wire.pages(f"/datasets/{dataset_id}/embeddings/skipped"))

    def coordinates(self, dataset_id: str, *, where: str | None = None, model: str | None = None) -> list[PointInfo]:
        """The points of the map, or those that a filter chooses; there are none before the first reduction."""
        path = f"/datasets/{dataset_id}/embeddings/coordinates"
        answer = self._request("GET", path, params=given(where=where, model=model), timeout_s=LONG_ANSWER_S)
        return cast(list[PointInfo], answer.json())

    def _started(self, path: str, body: Mapping[str, object], model: str | None = None) -> str:
        return str(self._request("POST", path, params=given(model=model), body=body).json()["job_id"])
