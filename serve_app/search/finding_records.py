"""What findings answer: frozen records of samples and groups, which cross processes."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

from serve_app.records import VectorArray

Keep = Literal["largest", "oldest", "first"]
"""What of near-duplicates is kept: the one of most pixels, the oldest file, or the first name."""
Value = str | float | bool | datetime


@dataclass(frozen=True, slots=True)
class Twin:
    """A sample of a group of near-duplicates: the one to keep or one to drop, and why.

    `score` is the cosine to the one that is kept, and of that the largest in the group.
    """

    sample_id: str
    file_name: str
    label: str | None
    score: float
    action: Literal["keep", "drop"]
    reason: str


@dataclass(frozen=True, slots=True)
class KeptTwins:
    """Groups of near-duplicates, the kept one first. `incomplete` samples may have more than the graph's neighbours."""

    groups: list[list[Twin]]
    incomplete: int = 0


@dataclass(frozen=True, slots=True)
class Valued:
    """A sample with its value of a column."""

    sample_id: str
    file_name: str
    value: Value
    label: str | None


@dataclass(frozen=True, slots=True)
class Leak:
    """A sample and its twin of another value, with their cosine; `exact` says that both files have the same bytes."""

    sample_id: str
    file_name: str
    value: Value
    twin: Valued
    score: float
    exact: bool
    label: str | None


@dataclass(frozen=True, slots=True)
class Leaks:
    """Twins across values. `incomplete` samples may have a twin that the graph does not know."""

    items: list[Leak]
    incomplete: int = 0


@dataclass(frozen=True, slots=True)
class Mislabeled:
    """A sample whose vector speaks for another label; `score` is how much more likely that label is, in (0, 1]."""

    sample_id: str
    file_name: str
    label: str
    suggested_label: str
    score: float


@dataclass(frozen=True, slots=True)
class Medoid:
    """The sample in the middle of a cluster, with its own label."""

    sample_id: str
    file_name: str
    label: str | None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A dense group of samples; clusters are numbered from 0, the largest first.

    `label` is the most frequent label, and `share` how much of the cluster has it. `name` is the phrase that most of
    its samples fit best, and `name_share` how many of them do; both are None where no phrases were given.
    """

    cluster: int
    size: int
    medoid: Medoid
    name: str | None
    label: str | None
    share: float | None
    name_share: float | None = None


@dataclass(frozen=True, slots=True)
class Phrases:
    """Names to choose from: words with their (P, D) vectors, of length one, of the same space."""

    words: list[str]
    vectors: VectorArray
    space_key: str


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of a set, and the number of samples that belong to none.

    `members`, where they were asked for, has sample_id, file_name, label and cluster of the others, and name where
    phrases were given.
    """

    items: list[Cluster]
    noise: int
    members: pa.Table | None = None
