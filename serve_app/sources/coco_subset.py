"""Writes a part of a COCO file: the chosen images with their annotations, and everything about categories and licenses.

Entries are written as they were read, polygons included. Memory holds the ids of the chosen images and one entry.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from serve_app.errors import Conflict
from serve_app.sources.coco import identity
from serve_app.sources.json_arrays import MAX_DEPTH, entries

SECTIONS = ("licenses", "images", "annotations", "categories")


def subset(path: Path, chosen: frozenset[str], description: str) -> Iterator[str]:
    """The pieces of a JSON text with the arrays `SECTIONS`, in the order of the file.

    Args:
        path: the COCO file.
        chosen: the ids of images.
        description: goes into `info`.

    Raises:
        InvalidRequest: the file cannot be read any more.
        Conflict: the file has changed: it lacks a chosen image, or has one of the arrays twice.
    """
    yield json.dumps({"info": {"description": description}}, ensure_ascii=False)[:-1]
    missing = set(chosen)
    written: list[str] = []
    separator = ""
    for section, entry in entries(path, depth=MAX_DEPTH):
        if section not in SECTIONS:
            continue
        if entry is None:
            if section in written:
                raise Conflict(f"{path.name!r} has two arrays {section!r}")
            yield ("]" if written else "") + f', "{section}": ['
            written.append(section)
            separator = "\n"
        elif _is_wanted(section, entry, chosen, missing):
            yield separator + json.dumps(entry, ensure_ascii=False)
            separator = ",\n"
    if missing:
        raise Conflict(f"{path.name!r} has changed since it was scanned: {len(missing):,} images are gone; rescan")
    yield "]" if written else ""
    yield "".join(f', "{section}": []' for section in SECTIONS if section not in written) + "}\n"


def _is_wanted(section: str, entry: object, chosen: frozenset[str], missing: set[str]) -> bool:
    if section not in ("images", "annotations") or not isinstance(entry, dict):
        return section in ("licenses", "categories")
    if section == "annotations":
        return identity(entry.get("image_id")) in chosen
    image_id = identity(entry.get("id"))
    if image_id not in missing:
        return False  # it was not chosen, or an entry before this one has the id
    missing.discard(image_id)
    return True
