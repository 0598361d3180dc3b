"""Reads a COCO annotation file as a dataset, in a stream (the format: cocodataset.org/#format-data).

An image's label is the category of its largest annotation. The file is read twice, first for labels and then for
images, because its arrays may have any order. Between the two passes, memory holds one pair per annotated image.
"""

import os
from collections.abc import Iterator
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from typing import Any

import ijson

from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources.files import decode_name, encode_name, stat_files
from serve_app.sources.listing import image_path, open_listing

KNOWN_BY = frozenset({"images", "annotations"})
READ_SECTIONS = KNOWN_BY | {"categories"}
CHUNK_BYTES = 1 << 16
KEPT_DEPTH = 4
MAX_DEPTH = 64
PROBED_IMAGES = 10

_OPENING = frozenset({"start_map", "start_array"})
_CLOSING = frozenset({"end_map", "end_array"})

Entry = dict[str, Any]


def is_coco(path: Path) -> bool:
    """Whether a file is JSON with COCO's arrays `images` and `annotations`; for a broken file, it is False."""
    missing = set(KNOWN_BY)
    try:
        with open_listing(path) as file:
            for section, _ in _entries(file, path.name):
                missing.discard(section)
                if not missing:
                    return True
    except (InvalidRequest, ijson.JSONError):
        pass
    return False


def images(root: Path, annotations: Path) -> Iterator[SourceFile]:
    """The images that a COCO file names, in the file's order; `sample_id` is the image's id.

    File names are relative to `root`, or to the sub-folder of `root` in which one of the first files exists.

    Raises:
        InvalidRequest: the file is not JSON (the message has the byte), not COCO, or has an unusable entry.
    """
    labels = _labels(annotations)
    named = _named(annotations)
    first = list(islice(named, PROBED_IMAGES))
    folder = _image_folder(root, annotations, [file_name for _, file_name in first])
    for sample_id, file_name in chain(first, named):
        yield SourceFile(sample_id, _joined(folder, file_name), labels.get(sample_id))


def _labels(path: Path) -> dict[str, str]:
    """The labels of annotated images, by image id."""
    names: dict[str, str] = {}
    largest: dict[str, tuple[float, str]] = {}
    for section, place, entry in _read(path):
        if section == "categories":
            names[_id(entry, "id", place)] = str(entry.get("name") or "")
        elif section == "annotations" and entry.get("category_id") is not None:
            image_id, category_id = _id(entry, "image_id", place), _id(entry, "category_id", place)
            area = _area(entry)
            if image_id not in largest or area > largest[image_id][0]:
                largest[image_id] = (area, category_id)
    return {image_id: names.get(category_id) or category_id for image_id, (_, category_id) in largest.items()}


def _named(path: Path) -> Iterator[tuple[str, str]]:
    """The id and file name of each image."""
    for section, place, entry in _read(path):
        if section != "images":
            continue
        image_id = _id(entry, "id", place)
        file_name = entry.get("file_name")
        if not isinstance(file_name, str):
            raise InvalidRequest(f"{place}: has no 'file_name'")
        yield image_id, image_path(file_name, place)


def _read(path: Path) -> Iterator[tuple[str, str, Entry]]:
    """The section, place (for messages) and value of every entry in the file's top-level arrays."""
    sections: dict[str, int] = {}
    with open_listing(path) as file:
        try:
            for section, entry in _entries(file, path.name):
                n_before = sections.setdefault(section, 0)
                if entry is None or section not in READ_SECTIONS:
                    continue
                place = f"{section}[{n_before}] of {path.name!r}"
                if not isinstance(entry, dict):
                    raise InvalidRequest(f"{place}: is not an object")
                sections[section] += 1
                yield section, place, entry
        except ijson.JSONError as error:
            problem = _first_line(error)
            byte = _broken_byte(path, near=file.tell())
            raise InvalidRequest(f"{path.name!r} is not valid UTF-8 JSON at byte {byte:,}: {problem}") from None
    if "images" not in sections:
        found = ", ".join(sorted(sections)) or "none"
        raise InvalidRequest(
            f"{path.name!r} is not a COCO file: it has no array 'images' (arrays found: {found}); "
            "name another file in 'annotations', or register the folder with format 'folder'"
        )


def _entries(file: BufferedReader, name: str) -> Iterator[tuple[str, Any]]:
    """Each top-level array's key with None, and then the key with each entry; polygons are left out."""
    section, entry = "", ijson.ObjectBuilder()
    for depth, event, value in _shallow_events(file, name):
        if depth == 1 and event == "map_key":
            section = value
        elif depth == 2 and event not in _CLOSING:
            yield section, None if event in _OPENING else value
        elif depth > 2:
            if depth == 3 and event in _OPENING:
                entry = ijson.ObjectBuilder()
            entry.event(event, value)
            if depth == 3 and event in _CLOSING:
                yield section, entry.value


def _shallow_events(file: BufferedReader, name: str) -> Iterator[tuple[int, str, Any]]:
    """The parser's events inside at most `KEPT_DEPTH` brackets, each with its depth.

    `ijson.items` is unsuitable: it keeps the path of every open bracket, so that 100 kB of `[` take gigabytes, and it
    builds the polygons, which are most of the file.
    """
    depth = 0
    for event, value in ijson.basic_parse(file, use_float=True, buf_size=CHUNK_BYTES):
        if depth > KEPT_DEPTH and event == "number":
            continue  # corners of polygons are nearly all events of a large file
        depth += event in _OPENING
        if depth <= KEPT_DEPTH:
            yield depth, event, value
        elif depth > MAX_DEPTH:
            raise InvalidRequest(f"{name!r} is not a COCO file: its brackets nest deeper than {MAX_DEPTH}")
        depth -= event in _CLOSING


def _first_line(error: ijson.JSONError) -> str:
    """The first line of yajl's message; its other lines quote the file, and may not be UTF-8."""
    message = error.args[0]
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else str(message)
    return text.splitlines()[0].rstrip(".")


def _broken_byte(path: Path, *, near: int) -> int:
    """The byte at which the parser gives up; it lies in the last chunk that was read before `near`."""
    with open_listing(path) as file:
        sink = ijson.sendable_list()
        parser = ijson.basic_parse_coro(sink, use_float=True)
        try:
            while chunk := file.read(CHUNK_BYTES if file.tell() + 2 * CHUNK_BYTES < near else 1):
                parser.send(chunk)
                sink.clear()
        except ijson.JSONError:
            pass
        return file.tell()


def _id(entry: Entry, key: str, place: str) -> str:
    """An id as text; COCO uses whole numbers, other writers use strings, and pandas turns 7 into 7.0."""
    value = entry.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise InvalidRequest(f"{place}: {key!r} must be a whole number or a text, not {value!r}")
    return str(value)


def _area(entry: Entry) -> float:
    """The area of an annotation in pixels; without `area`, that of its bounding box (x, y, width, height)."""
    area, bbox = entry.get("area"), entry.get("bbox")
    if isinstance(area, int | float):
        return float(area)
    if isinstance(bbox, list) and len(bbox) == 4 and all(isinstance(side, int | float) for side in bbox):
        return float(bbox[2] * bbox[3])
    return 0.0


def _image_folder(root: Path, annotations: Path, file_names: list[str]) -> bytes:
    """The sub-folder of the root to which the file names are relative: the first that holds one of the files."""
    split = os.fsencode(annotations.stem.removeprefix("instances_"))
    candidates = [b"", b"images", split, b"images/" + split]
    if annotations.parent != root and annotations.is_relative_to(root):
        candidates.insert(1, os.fsencode(annotations.parent.relative_to(root)))
    for folder in candidates:
        stats = stat_files(str(root), [_joined(folder, file_name) for file_name in file_names])
        if any(size_bytes >= 0 for size_bytes, _ in stats):
            return folder
    return b""


def _joined(folder: bytes, file_name: str) -> str:
    return encode_name(folder + b"/" + decode_name(file_name)) if folder else file_name
