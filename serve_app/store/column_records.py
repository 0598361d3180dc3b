"""What the store says about columns and tags; routes answer with these records as they are."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ValueCount:
    """A value of a column, or a tag, and the number of samples that have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column of a dataset: `count` samples have a value. Text lists its most frequent values, other types a range.

    `type` is text, number, boolean or time. `is_stored` is False for what follows from the listing, and for tags.
    `origin` says where the values come from: "put" by a client, "source" (the annotation file), "read" (the images, as
    they were read), or "listing" and "tags".
    """

    name: str
    type: str
    is_stored: bool
    origin: str
    count: int
    distinct: int
    values: list[ValueCount]
    min: float | str | None
    max: float | str | None


@dataclass(frozen=True, slots=True)
class RefusedRows:
    """Rows of a file that were left out for one reason, with the keys of the first ones."""

    reason: str
    count: int
    examples: list[str]


@dataclass(frozen=True, slots=True)
class ColumnsChange:
    """The columns that a file added or replaced, the number of its rows, and how many of them were of use."""

    columns: list[str]
    rows: int
    matched: int
    refused: list[RefusedRows]
    ignored: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TagChange:
    """The number of samples that were chosen, and of those whose tags changed."""

    changed: int
    selected: int
