"""Reads a COCO annotation file as a dataset (the format: cocodataset.org/#format-data).

An image's label is the category of its largest annotation. The file is read twice, first for labels and then for
images, because its arrays may have any order. Between the two passes, memory holds a label and a few numbers for each
annotated image. The other fields of an image, and the number of its annotations by category, are its `values`.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources.json_arrays import entries
from serve_app.sources.listing import folder_of, image_path, label_text

KNOWN_BY = ("images", "annotations")
READ_SECTIONS = frozenset({*KNOWN_BY, "categories"})
READ_FIELDS = frozenset({"id", "file_name"})
COUNT_PREFIX = "n_"
"""The number of an image's annotations of the category cat is the column n_cat."""

Entry = dict[str, Any]


def check(path: Path) -> None:
    """Make sure that a file is JSON with COCO's arrays `images` and `annotations`; it is read no further than these.

    Raises:
        InvalidRequest: the file cannot be opened, is broken before the arrays, or lacks one of them.
    """
    missing = list(KNOWN_BY)
    for section, _ in entries(path):
        if section in missing:
            missing.remove(section)
        if not missing:
            return
    raise InvalidRequest(f"{path.name!r} is not a COCO file: it has no array {missing[0]!r}")


def images(root: Path, annotations: Path, notices: list[str]) -> Iterator[SourceFile]:
    """The images that a COCO file names, in the file's order; `sample_id` is the image's id.

    File names are relative to one of `folders`.

    Raises:
        InvalidRequest: the file is not JSON (the message has the byte), not COCO, or has an unusable entry.
    """
    labels, counts = _annotated(annotations)
    none = dict.fromkeys((name for name, _ in sorted(_totals(counts).items(), key=lambda pair: -pair[1])), 0)
    seen: dict[str, int] = {}
    for place, image_id, text, fields in _named(annotations):
        file_name = image_path(text, place, root=root, base=folder_of(annotations, root))
        if seen.setdefault(image_id, hash(file_name)) != hash(file_name):
            raise InvalidRequest(
                f"{place}: an image before it has the id {image_id[:100]!r} too; give each image an id of its own, "
                "and name it in 'image_id' of its annotations"
            )
        values = {**fields, **none, **counts.get(image_id, {})}
        yield SourceFile(image_id, file_name, labels.get(image_id), values=values)
    if strangers := labels.keys() - seen.keys():
        notices.append(
            f"{annotations.name!r} annotates {len(strangers):,} images that it does not list "
            f"(one has the id {min(strangers)[:100]!r}); these annotations were left out"
        )


def folders(root: Path, annotations: Path) -> tuple[bytes, ...]:
    """The folders below the root to which an annotation file's names may be relative, in the order of preference."""
    split = os.fsencode(annotations.stem.removeprefix("instances_"))
    usual = [b"images", b"data", split, b"images/" + split]
    base = folder_of(annotations, root)
    beside = [base, *(base + b"/" + folder for folder in (b"images", b"data"))] if base else []
    return (b"", *dict.fromkeys([*beside, *usual]))


def _totals(counts: dict[str, dict[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for counted in counts.values():
        for name, number in counted.items():
            totals[name] = totals.get(name, 0) + number
    return totals


def _annotated(path: Path) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    """By image id: the label, and the number of annotations of each category, as `n_<category>`."""
    names: dict[str, str] = {}
    counts: dict[str, dict[str, int]] = {}
    largest: dict[str, tuple[float, str]] = {}
    for section, place, entry in _read(path):
        if section == "categories":
            category_id, name = _id(entry, "id", place), _name(entry, place)
            if names.setdefault(category_id, name) != name:
                raise InvalidRequest(f"{place}: a category before it has the id {category_id[:100]!r} and another name")
        elif section == "annotations" and entry.get("category_id") is not None:
            image_id, category_id = _id(entry, "image_id", place), _id(entry, "category_id", place)
            counted = counts.setdefault(image_id, {})
            counted[category_id] = counted.get(category_id, 0) + 1
            area = _area(entry)
            if image_id not in largest or area > largest[image_id][0]:
                largest[image_id] = (area, category_id)
    labels = {image_id: names.get(category_id) or category_id for image_id, (_, category_id) in largest.items()}
    return labels, {image_id: _by_name(counted, names) for image_id, counted in counts.items()}


def _by_name(counted: dict[str, int], names: dict[str, str]) -> dict[str, int]:
    """The numbers by column; categories of one name count together."""
    found: dict[str, int] = {}
    for category_id, number in counted.items():
        column = COUNT_PREFIX + (names.get(category_id) or category_id)
        found[column] = found.get(column, 0) + number
    return found


def _named(path: Path) -> Iterator[tuple[str, str, str, Entry]]:
    """The place, the id, the unchanged file name and the other fields of each image."""
    for section, place, entry in _read(path):
        if section != "images":
            continue
        image_id = _id(entry, "id", place)
        file_name = entry.get("file_name")
        if not isinstance(file_name, str):
            raise InvalidRequest(f"{place}: has no 'file_name'")
        yield place, image_id, file_name, {key: value for key, value in entry.items() if key not in READ_FIELDS}


def _read(path: Path) -> Iterator[tuple[str, str, Entry]]:
    """The section, place (for messages) and value of every entry in the file's top-level arrays."""
    sections: dict[str, int] = {}
    for section, entry in entries(path):
        n_before = sections.setdefault(section, 0)
        if entry is None or section not in READ_SECTIONS:
            continue
        place = f"{section}[{n_before}] of {path.name!r}"
        if not isinstance(entry, dict):
            raise InvalidRequest(f"{place}: is not an object")
        sections[section] += 1
        yield section, place, entry
    if "images" not in sections:
        found = ", ".join(sorted(sections))[:200] or "none"
        raise InvalidRequest(
            f"{path.name!r} is not a COCO file: it has no array 'images' (arrays found: {found}); "
            "name another file in 'annotations', or register the folder with format 'folder'"
        )


def _id(entry: Entry, key: str, place: str) -> str:
    """An id as text; COCO uses whole numbers, other writers use strings, and pandas turns 7 into 7.0."""
    found = identity(entry.get(key))
    if found is None:
        raise InvalidRequest(f"{place}: {key!r} must be a whole number or a text, not {entry.get(key)!r:.100}")
    return found


def identity(value: object) -> str | None:
    """An id as text, None if the value is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if isinstance(value, bool) or not isinstance(value, int | str) or value == "" else str(value)


def _name(entry: Entry, place: str) -> str:
    """A category's name, which may be a number; nothing if it has none."""
    try:
        return label_text(entry.get("name")) or ""
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error.detail}") from None


def _area(entry: Entry) -> float:
    """The area of an annotation in pixels; without `area`, that of its bounding box (x, y, width, height)."""
    area, bbox = entry.get("area"), entry.get("bbox")
    if isinstance(area, int | float):
        return _finite(area)
    if isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(side, int | float) for side in bbox):
        return _finite(bbox[2]) * _finite(bbox[3])
    return 0.0


def _finite(number: float) -> float:
    """The number as a float; a whole number too large for one counts as infinite."""
    try:
        return float(number)
    except OverflowError:
        return float("inf")
