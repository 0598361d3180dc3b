"""A synchronous client of the HTTP API: what the command line and the demo speak, and scripts may.

Owns the wire: paths, time limits, errors. Knows nothing about terminals, nor what to do when a stream drops.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, cast
from urllib.parse import quote

import httpx
from httpx_sse import SSEError, connect_sse

from serve_app.answers import DatasetInfo, EmbeddingsInfo, JobInfo, JobKind, NeighbourInfo, Progress, SkipInfo

ANSWER_S = 60.0
# Listing a large folder on a slow disk, and comparing every image with every other, take their time.
LONG_ANSWER_S = 600.0
# The service pings its streams every 15 s: after three missed pings nobody is there.
STREAM_SILENCE_S = 45.0


class Unreachable(Exception):
    """Nothing answers at the address, or what answers is not Constellate."""


class NothingThere(Unreachable):
    """Nobody listens at the address."""


class Refused(Exception):
    """The service answered with a problem (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail") or f"the service answered with HTTP status {status}"))
        self.status = status
        self.code = str(problem.get("code", ""))
        self.problem = problem


class Client:
    """Calls of the HTTP API; each raises `Unreachable` or `Refused`.

    Args:
        url: where the service listens.
        api_key: sent as a bearer token.
        transport: what carries requests; the network by default.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=_timeout(ANSWER_S),
            transport=transport,
            trust_env=False,  # a proxy from the environment would be asked for loopback addresses too
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def check(self) -> None:
        """Make sure that a Constellate answers at the address.

        Raises:
            NothingThere: nobody listens.
            Unreachable: something else listens, or it does not answer.
        """
        try:
            answer = self._http.get("/healthz", timeout=_timeout(5))
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise NothingThere(f"no service answers at {self.url}") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"what listens at {self.url} does not answer as Constellate does: {error}") from None
        if not _is_ours(answer):
            raise Unreachable(f"what listens at {self.url} is not Constellate; choose another --port")

    def ready(self) -> None:
        """Return when the service is able to embed and to write; `Refused` (503) says why it is not."""
        self._call("GET", "/readyz")

    def datasets(self) -> list[DatasetInfo]:
        """Every dataset."""
        return cast(list[DatasetInfo], self._call("GET", "/datasets").json())

    def dataset(self, dataset_id: str) -> DatasetInfo:
        """One dataset."""
        return cast(DatasetInfo, self._call("GET", f"/datasets/{dataset_id}").json())

    def register(self, name: str, root: Path) -> DatasetInfo:
        """Register a folder; `Refused` (409, with `dataset_id`) when the name is taken."""
        body = {"name": name, "root": str(root), "format": "auto"}
        return cast(DatasetInfo, self._call("POST", "/datasets", body=body, timeout_s=LONG_ANSWER_S).json())

    def rescan(self, dataset_id: str) -> dict[str, int]:
        """Pick up `added`, `changed` and `removed` files."""
        answer = self._call("POST", f"/datasets/{dataset_id}/rescan", timeout_s=LONG_ANSWER_S)
        return cast(dict[str, int], answer.json())

    def generate(self, dataset_id: str, *, model_name: str | None = None, force: bool = False) -> str:
        """Start embedding and return the job's id; `Refused` (409, with `job_id`) while a job runs."""
        body = {"force": force} | ({"model_name": model_name} if model_name else {})
        return self._started(f"/datasets/{dataset_id}/embeddings/generate", body)

    def reduce(self, dataset_id: str) -> str:
        """Start the 2D map and return the job's id; `Refused` (409, with `job_id`) while a job runs."""
        return self._started(f"/datasets/{dataset_id}/embeddings/reduce", {})

    def cancel(self, dataset_id: str) -> None:
        """Cancel the dataset's running job; `Refused` (409) when none runs."""
        self._call("POST", f"/datasets/{dataset_id}/embeddings/cancel")

    def embeddings(self, dataset_id: str) -> EmbeddingsInfo:
        """Which vectors and map the dataset has."""
        return cast(EmbeddingsInfo, self._call("GET", f"/datasets/{dataset_id}/embeddings/status").json())

    def skipped(self, dataset_id: str) -> Iterator[SkipInfo]:
        """The images that the last embed job left out."""
        params: dict[str, str | float] = {}
        while True:
            page = self._call("GET", f"/datasets/{dataset_id}/embeddings/skipped", params=params).json()
            yield from cast(list[SkipInfo], page["items"])
            if not page.get("next_cursor"):
                return
            params = {"cursor": page["next_cursor"]}

    def jobs(self, *, limit: int = 100) -> list[JobInfo]:
        """The newest jobs first."""
        return cast(list[JobInfo], self._call("GET", "/jobs", params={"limit": limit}).json())

    def job(self, job_id: str) -> JobInfo:
        """One job."""
        return cast(JobInfo, self._call("GET", f"/jobs/{job_id}").json())

    def similar(self, dataset_id: str, sample_id: str, *, limit: int) -> list[NeighbourInfo]:
        """The samples most similar to one of the dataset, best first."""
        path = f"/datasets/{dataset_id}/similarity/{quote(sample_id)}"
        return cast(list[NeighbourInfo], self._call("GET", path, params={"limit": limit}).json()["items"])

    def search(self, dataset_id: str, image: Path, *, limit: int) -> list[NeighbourInfo]:
        """The samples most similar to an image file, best first."""
        path = f"/datasets/{dataset_id}/search"
        with image.open("rb") as stream:
            answer = self._call("POST", path, params={"limit": limit}, files={"file": (image.name, stream)})
        return cast(list[NeighbourInfo], answer.json()["items"])

    def duplicates(self, dataset_id: str, *, threshold: float) -> list[list[NeighbourInfo]]:
        """Groups of samples linked by a cosine of at least `threshold`."""
        answer = self._survey(dataset_id, "duplicates", threshold=threshold)
        return cast(list[list[NeighbourInfo]], answer["groups"])

    def outliers(self, dataset_id: str, *, k: int, limit: int) -> list[NeighbourInfo]:
        """The samples least similar to their `k` nearest neighbours, the strangest first."""
        return cast(list[NeighbourInfo], self._survey(dataset_id, "outliers", k=k, limit=limit)["items"])

    def diverse(self, dataset_id: str, *, n: int) -> list[NeighbourInfo]:
        """`n` samples that cover the dataset, in the order chosen."""
        return cast(list[NeighbourInfo], self._survey(dataset_id, "diverse", n=n)["items"])

    def export(self, dataset_id: str, target: Path, *, format: Literal["parquet", "arrow"] = "parquet") -> None:
        """Write the dataset's vectors and map to a file; a partial one is never left behind."""
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
        path = f"/datasets/{dataset_id}/embeddings/export"
        try:
            with (
                _naming_failures(self.url),
                self._http.stream("GET", path, params={"format": format}, timeout=_timeout(LONG_ANSWER_S)) as answer,
                unfinished.open("wb") as stream,
            ):
                _refuse_errors(answer)
                for part in answer.iter_bytes():
                    stream.write(part)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)

    def events(self, dataset_id: str, kind: JobKind, *, last_event: str = "") -> Iterator[Progress]:
        """The progress stream of a dataset over one connection; ends quietly when it drops or is refused.

        `following.follow` is what most callers want.
        """
        path = f"/datasets/{dataset_id}/embeddings/" + ("progress" if kind == "embed" else "reduce/progress")
        headers = {"Last-Event-ID": last_event} if last_event else {}
        timeout = _timeout(STREAM_SILENCE_S)
        try:
            with connect_sse(self._http, "GET", path, headers=headers, timeout=timeout) as source:
                if source.response.status_code != httpx.codes.OK:
                    return
                for event in source.iter_sse():
                    if event.event == "progress":
                        yield Progress.of(json.loads(event.data), event_id=event.id)
        except (httpx.HTTPError, SSEError):
            return

    def _started(self, path: str, body: Mapping[str, object]) -> str:
        return str(self._call("POST", path, body=body).json()["job_id"])

    def _survey(self, dataset_id: str, question: str, **params: float) -> dict[str, Any]:
        answer = self._call("GET", f"/datasets/{dataset_id}/{question}", params=params, timeout_s=LONG_ANSWER_S)
        return cast(dict[str, Any], answer.json())

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | float] | None = None,
        body: Mapping[str, object] | None = None,
        files: Mapping[str, tuple[str, BinaryIO]] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> httpx.Response:
        with _naming_failures(self.url):
            answer = self._http.request(
                method, path, params=params, json=body, files=files, timeout=_timeout(timeout_s)
            )
        _refuse_errors(answer)
        return answer


def _timeout(answer_s: float) -> httpx.Timeout:
    """Connecting to a service that is there takes no time; answering may."""
    return httpx.Timeout(answer_s, connect=5.0)


@contextmanager
def _naming_failures(url: str) -> Iterator[None]:
    """Turn what httpx raises into `Unreachable`."""
    try:
        yield
    except httpx.HTTPError as error:
        raise Unreachable(f"the service at {url} does not answer: {error}") from None


def _refuse_errors(answer: httpx.Response) -> None:
    """Raise `Refused` for an error status."""
    if not answer.is_error:
        return
    try:
        problem = json.loads(answer.read())
    except ValueError:
        problem = None
    raise Refused(answer.status_code, problem if isinstance(problem, dict) else {})


def _is_ours(answer: httpx.Response) -> bool:
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("service") == "constellate"
