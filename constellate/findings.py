"""The calls that ask what to act on: twins, leaks, wrong labels, clusters, outliers; each can be saved as a plan."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, cast

import httpx

from constellate.records import ClusterInfo, ClustersInfo, LeakInfo, MislabeledInfo, NeighbourInfo, TwinInfo
from constellate.wire import LONG_ANSWER_S, Wire

T = TypeVar("T")

Keep = Literal["largest", "oldest", "first"]
Finding = Literal["duplicates", "leaks", "mislabeled", "clusters", "diverse", "outliers"]
PlanFormat = Literal["csv", "parquet"]


class Found(list[T]):
    """A list of what was found.

    `incomplete` counts the samples that may have more twins than their graph knows; `notices` say what else the list
    does not show, such as that a text was cut.
    """

    def __init__(self, items: Iterable[T], incomplete: int = 0, notices: Iterable[str] = ()) -> None:
        super().__init__(items)
        self.incomplete = incomplete
        self.notices = list(notices)


class Labelled(dict[str, int]):
    """How many samples each phrase fits best; `notices` say which phrases were cut."""

    def __init__(self, counts: Mapping[str, int], notices: Iterable[str] = ()) -> None:
        super().__init__(counts)
        self.notices = list(notices)


class Findings:
    """A part of `Routes`; each call is about the set of `model`, or the one made last.

    Each raises `Refused`, for example (409, `graph_needed`) about a large set.
    """

    _wire: Wire
    _request: Callable[..., httpx.Response]

    def duplicates(
        self, dataset_id: str, *, threshold: float, where: str | None = None, model: str | None = None
    ) -> Found[list[NeighbourInfo]]:
        """Groups of samples, or of those that a filter chooses, linked by a cosine of at least `threshold`."""
        answer = self._finding(dataset_id, "duplicates", {"threshold": threshold}, where, model)
        return Found(cast(list[list[NeighbourInfo]], answer["groups"]), cast(int, answer.get("incomplete", 0)))

    def outliers(
        self, dataset_id: str, *, k: int, limit: int, where: str | None = None, model: str | None = None
    ) -> list[NeighbourInfo]:
        """The samples least similar to their `k` nearest neighbours, the strangest first.

        Neighbours are looked for among the samples that a filter chooses too.
        """
        params = {"k": k, "limit": limit}
        return cast(list[NeighbourInfo], self._finding(dataset_id, "outliers", params, where, model)["items"])

    def diverse(
        self,
        dataset_id: str,
        *,
        n: int,
        where: str | None = None,
        labelled: str | None = None,
        balance: str | None = None,
        model: str | None = None,
    ) -> list[NeighbourInfo]:
        """`n` samples that cover the dataset, or what a filter chooses of it, in the order of choice.

        The choice keeps away from what the filter `labelled` chooses, and takes turns among the values of the column
        `balance`.
        """
        params = {"n": n, "labelled": labelled, "balance": balance}
        return cast(list[NeighbourInfo], self._finding(dataset_id, "diverse", params, where, model)["items"])

    def twins(
        self,
        dataset_id: str,
        *,
        threshold: float = 0.95,
        keep: Keep = "largest",
        where: str | None = None,
        model: str | None = None,
    ) -> Found[list[TwinInfo]]:
        """Groups of near-duplicates, the one to keep first; all others are its twins, and `reason` says why they go."""
        answer = self._finding(dataset_id, "duplicates", {"threshold": threshold, "keep": keep}, where, model)
        return Found(cast(list[list[TwinInfo]], answer["groups"]), cast(int, answer.get("incomplete", 0)))

    def leaks(
        self,
        dataset_id: str,
        *,
        column: str = "split",
        threshold: float = 0.95,
        where: str | None = None,
        model: str | None = None,
    ) -> Found[LeakInfo]:
        """Twins whose values of a column differ, exact copies first, then by cosine."""
        answer = self._finding(dataset_id, "leaks", {"column": column, "threshold": threshold}, where, model)
        return Found(cast(list[LeakInfo], answer["items"]), cast(int, answer.get("incomplete", 0)))

    def mislabeled(
        self, dataset_id: str, *, limit: int = 100, where: str | None = None, model: str | None = None
    ) -> list[MislabeledInfo]:
        """The samples whose labels the vectors speak against, the most doubtful first."""
        return cast(
            list[MislabeledInfo], self._finding(dataset_id, "mislabeled", {"limit": limit}, where, model)["items"]
        )

    def clusters(
        self,
        dataset_id: str,
        *,
        min_size: int = 5,
        phrases: Sequence[str] | None = None,
        where: str | None = None,
        model: str | None = None,
    ) -> ClustersInfo:
        """Dense groups of samples, the largest first, and the number of samples in none (`noise`).

        With two phrases or more, the `name` of each is the one that most of its samples fit best; raises `Refused`
        (409) for a model that takes no text.
        """
        params = {"min_size": min_size, "phrases": phrases}
        return cast(ClustersInfo, self._finding(dataset_id, "clusters", params, where, model))

    def put_clusters(
        self,
        dataset_id: str,
        *,
        column: str = "cluster",
        min_size: int = 5,
        phrases: Sequence[str] | None = None,
        where: str | None = None,
        model: str | None = None,
    ) -> list[ClusterInfo]:
        """Put the number of each sample's cluster into a column, as a text: `cluster = '3'` is then a filter."""
        params = {"column": column, "min_size": min_size, "phrases": phrases}
        answer = self._finding(dataset_id, "clusters", params, where, model, method="POST")
        return cast(list[ClusterInfo], answer["items"])

    def save_plan(
        self,
        /,
        dataset_id: str,
        finding: Finding,
        target: str | Path,
        *,
        format: PlanFormat | None = None,
        **params: object,
    ) -> None:
        """Write a finding to a file, one row for each sample; a failed call leaves no partial file.

        `params` are those of the finding's own call, such as `threshold` and `where`. The format follows from the name.
        """
        path = Path(target)
        given = {name: _text(value) for name, value in params.items() if value is not None}
        given["format"] = format or ("parquet" if path.suffix == ".parquet" else "csv")
        self._wire.download(f"/datasets/{dataset_id}/{finding}", path, given)

    def _finding(
        self,
        dataset_id: str,
        finding: str,
        params: Mapping[str, object],
        where: str | None,
        model: str | None,
        *,
        method: str = "GET",
    ) -> dict[str, object]:
        named = {**params, "where": where, "model": model}
        given = {name: value for name, value in named.items() if value is not None}
        answer = self._request(method, f"/datasets/{dataset_id}/{finding}", params=given, timeout_s=LONG_ANSWER_S)
        return cast(dict[str, object], answer.json())


def _text(value: object) -> str | list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else str(value)
