"""Reads a manifest as a dataset: CSV, JSON Lines or Parquet with file names and optionally labels."""

import base64
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, repeat
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources.listing import LABEL_COLUMNS, Untyped, image_path, label_text
from serve_app.sources.parquet_table import Table
from serve_app.sources.text_lines import lines
from serve_app.urls import Url, is_url, parse

NAME_COLUMNS = (
    "file_name",
    "filename",
    "file_path",
    "path",
    "image",
    "filepath",
    "image_path",
    "image_file",
    "image_name",
    "img_path",
    "img",
    "file",
    "relative_path",
)
SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
DELIMITERS = (",", ";", "\t")
PARQUET_MAGIC = b"PAR1"
MAX_COLUMNS_CHARS = 200
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24}[A-Za-z0-9+/_\s-]*={0,2}\s*")
BASE64_HEAD = 24
MIN_BASE64_CHARS = 40
IMAGE_MAGICS = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x1cftyp",
    b"\0\0\0 ftyp",
)


_NO_VALUES: Mapping[str, object] = MappingProxyType({})


class NameColumns(NamedTuple):
    """The positions of the columns of names and labels; `label` is None if there are no labels."""

    name: int
    label: int | None


class Row(NamedTuple):
    """The place in the manifest (for messages), the unchanged file name and label, and the other cells by column."""

    place: str
    name: object
    label: object
    values: Mapping[str, object]


def check(file: IO[bytes], name: str) -> None:
    """Make sure that an open file has a column of file names. Raises `InvalidRequest`."""
    next(_rows(file, name, []), None)


def images(
    file: IO[bytes],
    manifest: str,
    allows: Callable[[Url], bool] = lambda url: False,
    *,
    root: Path | None = None,
    base: bytes = b"",
    notices: list[str] | None = None,
) -> Iterator[SourceFile]:
    """The images that a manifest names, in its order; `sample_id` is the file name.

    Args:
        file: the open manifest.
        manifest: the manifest's name, for messages.
        allows: tells whether the service may read a URL.
        root: the dataset's folder, if it is one of this machine.
        base: the manifest's folder below the root.
        notices: gets a sentence if no column holds labels.

    Raises:
        InvalidRequest: the file has another format, has no column of file names, or has an unusable row.
    """
    for place, name, label, values in _rows(file, manifest, [] if notices is None else notices):
        if not isinstance(name, str):
            raise InvalidRequest(f"{place}: the file name must be a text, not {type(name).__name__}")
        if _is_image_text(name):
            raise InvalidRequest(
                f"{place}: this is an image as base64 text, not a file name; write the image's bytes into a binary "
                "column of a Parquet file, or into a file of its own"
            )
        file_name = _url(name, place, allows) if is_url(name) else image_path(name, place, root=root, base=base)
        yield SourceFile(file_name, file_name, _label(label, place), values=values)


def _url(text: str, place: str, allows: Callable[[Url], bool]) -> str:
    try:
        url = parse(text.strip(), with_query=True)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error.detail}") from None
    if not url.host or not url.parts or not allows(url):
        raise InvalidRequest(f"{place}: this URL is not below one of DATASET_ROOTS; add its host or bucket there")
    return str(url)


def _rows(file: IO[bytes], name: str, notices: list[str]) -> Iterator[Row]:
    start = file.tell()
    is_parquet = name.lower().endswith(".parquet") or file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    file.seek(start)
    if is_parquet:
        return _parquet_rows(file, name, notices)
    if name.lower().endswith((".jsonl", ".ndjson")):
        return _json_rows(file, name, notices)
    return _csv_rows(file, name, notices)


def _csv_rows(file: IO[bytes], name: str, notices: list[str]) -> Iterator[Row]:
    rest, n_before = lines(file, name), 0
    header = next(rest, "")
    delimiter = _stated_delimiter(header)
    if delimiter is not None:
        header, n_before = next(rest, ""), 1
    reader = csv.reader(chain([header], rest), delimiter=delimiter or _delimiter(header), strict=True)
    try:
        names = next(reader, [])
        columns = _columns(names, name, notices)
        further = _further(names, columns, notices)
        for row in reader:
            if row:
                values = {key: Untyped(row[at]) for key, at in further.items() if at < len(row) and row[at]}
                place = f"line {reader.line_num + n_before} of {name!r}"
                yield Row(place, _cell(row, columns.name), _cell(row, columns.label), values)
    except csv.Error as error:
        raise InvalidRequest(f"line {reader.line_num + n_before} of {name!r} is not CSV: {error}") from None


def _json_rows(file: IO[bytes], name: str, notices: list[str]) -> Iterator[Row]:
    """Rows of JSON Lines: an object in each line, whose keys are the columns."""
    keys: list[str] = []
    has_labels = False
    for number, line in enumerate(lines(file, name), 1):
        if not line.strip():
            continue
        row = _json_object(line, f"line {number} of {name!r}")
        keys = keys or list(row)
        columns = _columns(list(row), name, [])
        has_labels = has_labels or columns.label is not None
        cells = list(row.values())
        values = {key: cells[at] for key, at in _further(list(row), columns, notices).items()}
        label = None if columns.label is None else cells[columns.label]
        yield Row(f"line {number} of {name!r}", cells[columns.name], label, values)
    if not keys:
        raise InvalidRequest(f"{name!r} has no rows")
    if not has_labels:
        _columns(keys, name, notices)


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else "it holds too long a number or nests deeply"
        raise InvalidRequest(f"{place} is not JSON: {problem}") from None
    if not isinstance(row, dict):
        raise InvalidRequest(f"{place} is not a JSON object")
    return row


def _stated_delimiter(header: str) -> str | None:
    """The delimiter that Excel writes into a line of its own before the header."""
    stated = header.rstrip("\r\n")
    return stated[4] if len(stated) == 5 and stated.lower().startswith("sep=") else None


def _delimiter(header: str) -> str:
    """The delimiter with which the header has a known column, else the one that gives most columns."""

    def score(delimiter: str) -> tuple[bool, int]:
        cells = header.rstrip("\r\n").replace('"', "").split(delimiter)
        return any(_plain(cell) in NAME_COLUMNS for cell in cells), len(cells)

    return max(DELIMITERS, key=score)


def _cell(row: list[str], position: int | None) -> str | None:
    """A cell of a row, or None if the row ends before it."""
    return row[position] if position is not None and position < len(row) else None


def _parquet_rows(file: IO[bytes], name: str, notices: list[str]) -> Iterator[Row]:
    table = Table(file, name)
    columns = _columns(table.schema.names, name, notices)
    wanted = [table.schema.names[position] for position in columns if position is not None]
    further = table.further(wanted, notices)
    number = 0
    for batch in table.batches(wanted, further=further):
        labels = repeat(None) if columns.label is None else batch[1]
        others = batch[len(wanted) :]
        rows = zip(*others, strict=True) if others else repeat(())
        for name_cell, label, cells in zip(batch[0], labels, rows, strict=False):
            number += 1
            values = dict(zip(further, cells, strict=True)) if cells else _NO_VALUES
            yield Row(f"row {number} of {name!r}", name_cell, label, values)


def _columns(found: list[str], name: str, notices: list[str]) -> NameColumns:
    columns = f"columns found: {', '.join(found)[:MAX_COLUMNS_CHARS] or 'none'}"
    position = _position(found, NAME_COLUMNS, name)
    if position is None:
        raise InvalidRequest(
            f"{name!r} has no column 'file_name' ({columns}); "
            "add one with the paths of the images relative to the dataset's folder"
        )
    label = _position(found, LABEL_COLUMNS, name)
    if label is None and len(found) > 1:
        notices.append(f"{name!r} has no column 'label' ({columns}), so its images have no labels")
    return NameColumns(position, label)


def _further(found: list[str], columns: NameColumns, notices: list[str]) -> dict[str, int]:
    """The positions of the columns besides those of names and labels, by name."""
    positions: dict[str, int] = {}
    for position, column in enumerate(map(str.strip, found)):
        if position in columns:
            continue
        notice = f"left out: a second column {column[:MAX_COLUMNS_CHARS]!r}"
        if column in positions and notice not in notices:
            notices.append(notice)
        positions.setdefault(column, position)
    return positions


def _position(found: list[str], known: tuple[str, ...], name: str) -> int | None:
    """The position of the first known column; case, and blanks in and around a name, do not matter."""
    names = [_plain(column) for column in found]
    column = next((column for column in known if column in names), None)
    if column is not None and names.count(column) > 1:
        raise InvalidRequest(f"{name!r} has two columns {column!r}; rename one of them")
    return None if column is None else names.index(column)


def _plain(column: str) -> str:
    return column.strip().casefold().replace(" ", "_").replace("-", "_")


def _label(value: object, place: str) -> str | None:
    try:
        return label_text(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error.detail}") from None


def _is_image_text(text: str) -> bool:
    """Whether a text is a data URI, or base64 that begins like an image file."""
    if text.startswith("data:"):
        return True
    if len(text) < MIN_BASE64_CHARS or not BASE64.fullmatch(text):
        return False
    head = text[:BASE64_HEAD].replace("-", "+").replace("_", "/")
    return base64.b64decode(head).startswith(IMAGE_MAGICS)
