"""The schemas of findings: what their requests choose, and their answers."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from serve_app.api.schemas import WhereText
from serve_app.search import clustering, label_doubts
from serve_app.search.finding_records import Cluster, Keep, Leak, Mislabeled, Twin

ColumnText = Annotated[str, StringConstraints(min_length=1, max_length=100)]
ColumnName = Annotated[ColumnText, Query(description="a column, as a filter names it")]
KeepChoice = Annotated[
    Keep | SkipJsonSchema[None],
    Query(description="which of near-duplicates to keep: the one of most pixels, the oldest file, the first name"),
]
Labelled = Annotated[
    WhereText | SkipJsonSchema[None],
    Query(description="a filter: what the choice keeps away from"),
]
Balance = Annotated[
    ColumnText | SkipJsonSchema[None], Query(description="a column whose values get equal shares of the choice")
]


_Phrase = Annotated[str, StringConstraints(pattern=r"[^\s\x00-\x1f]", max_length=200)]
PhraseChoice = Annotated[
    Annotated[list[_Phrase], Field(min_length=2, max_length=100)] | SkipJsonSchema[None],
    Query(
        description="words to name the clusters by, such as `phrases=cat&phrases=dog`; the set's model must take text",
    ),
]


class KeptGroups(BaseModel):
    """Groups of near-duplicates with what to do: the first of each group is the one to keep."""

    threshold: float = Field(examples=[0.95])
    groups: list[list[Twin]]
    incomplete: int = Field(0, description="as without `keep`")


class LeakList(BaseModel):
    """Twins whose values of a column differ."""

    column: str = Field(examples=["split"])
    threshold: float = Field(examples=[0.95])
    incomplete: int = Field(
        0,
        description="images that may have a twin which the graph does not know: a graph with a larger `k` finds it",
    )
    items: list[Leak]


class MislabeledList(BaseModel):
    """Samples whose labels are doubtful, the most doubtful first."""

    method: str = Field(examples=[label_doubts.METHOD])
    items: list[Mislabeled]


class ClusterList(BaseModel):
    """Dense groups of samples, the largest first."""

    method: str = Field(examples=[clustering.METHOD])
    noise: int = Field(description="samples that belong to no cluster", examples=[1])
    items: list[Cluster]


class ClusterColumn(ClusterList):
    """The clusters, and the column that has their numbers as texts."""

    column: str = Field(examples=["cluster"])
