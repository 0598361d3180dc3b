"""Reads a manifest as a dataset: CSV or Parquet with a column of file names and optionally a column of labels."""

import csv
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources.listing import LABEL_COLUMNS, image_path, label_text, open_listing
from serve_app.urls import Url, is_url, parse

NAME_COLUMNS = ("file_name", "filename", "file_path", "path", "image")
SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
DELIMITERS = (",", ";", "\t")
MAX_LINE_BYTES = 1 << 20
BATCH_ROWS = 2000
PARQUET_MAGIC = b"PAR1"
MAX_COLUMNS_CHARS = 200


class NameColumns(NamedTuple):
    """The positions of the columns of names and labels; `label` is None if there are no labels."""

    name: int
    label: int | None


Row = tuple[str, object, object]
"""The place in the manifest (for messages), and the unchanged file name and label."""


def is_manifest(path: Path) -> bool:
    """Whether a file can be read and has a column of file names."""
    try:
        with open_listing(path) as file:
            names_images(file, path.name)
    except InvalidRequest:
        return False
    return True


def names_images(file: IO[bytes], name: str) -> None:
    """Make sure that an open file has a column of file names. Raises `InvalidRequest`."""
    next(_rows(file, name), None)


def images(file: IO[bytes], manifest: str, allows: Callable[[Url], bool] = lambda url: False) -> Iterator[SourceFile]:
    """The images that a manifest names, in its order; `sample_id` is the file name.

    Args:
        file: the open manifest.
        manifest: the manifest's name, for messages.
        allows: tells whether the service may read a URL.

    Raises:
        InvalidRequest: the file is not CSV or Parquet, has no column of file names, or has an unusable row.
    """
    for place, name, label in _rows(file, manifest):
        if not isinstance(name, str):
            raise InvalidRequest(f"{place}: the file name must be a text, not {type(name).__name__}")
        file_name = _url(name, place, allows) if is_url(name) else image_path(name, place)
        yield SourceFile(file_name, file_name, _label(label, place))


def _url(text: str, place: str, allows: Callable[[Url], bool]) -> str:
    try:
        url = parse(text.strip(), with_query=True)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error.detail}") from None
    if not url.host or not url.parts or not allows(url):
        raise InvalidRequest(f"{place}: this URL is not below one of DATASET_ROOTS; add its host or bucket there")
    return str(url)


def _rows(file: IO[bytes], name: str) -> Iterator[Row]:
    start = file.tell()
    is_parquet = name.lower().endswith(".parquet") or file.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC
    file.seek(start)
    return _parquet_rows(file, name) if is_parquet else _csv_rows(file, name)


def _csv_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    lines = _lines(file, name)
    header = next(lines, "")
    reader = csv.reader(chain([header], lines), delimiter=_delimiter(header), strict=True)
    try:
        columns = _columns(next(reader, []), name)
        for row in reader:
            if row:
                yield f"line {reader.line_num} of {name!r}", _cell(row, columns.name), _cell(row, columns.label)
    except csv.Error as error:
        raise InvalidRequest(f"line {reader.line_num} of {name!r} is not CSV: {error}") from None


def _lines(file: IO[bytes], name: str) -> Iterator[str]:
    for number in count(1):
        line = file.readline(MAX_LINE_BYTES)
        if not line:
            return
        if len(line) == MAX_LINE_BYTES:
            raise InvalidRequest(f"line {number} of {name!r} has over {MAX_LINE_BYTES:,} bytes; is the file CSV?")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"line {number} of {name!r} is not UTF-8; save the file as 'CSV UTF-8'") from None


def _delimiter(header: str) -> str:
    """The delimiter with which the header has a known column, else the one that gives most columns."""

    def score(delimiter: str) -> tuple[bool, int]:
        cells = header.rstrip("\r\n").replace('"', "").split(delimiter)
        return _position(cells, NAME_COLUMNS) is not None, len(cells)

    return max(DELIMITERS, key=score)


def _cell(row: list[str], position: int | None) -> str | None:
    """A cell of a row, or None if the row ends before it."""
    return row[position] if position is not None and position < len(row) else None


def _parquet_rows(file: IO[bytes], name: str) -> Iterator[Row]:
    number = 0
    try:
        parquet = pq.ParquetFile(file)
        found = parquet.schema_arrow.names
        columns = _columns(found, name)
        wanted = [found[position] for position in columns if position is not None]
        for batch in parquet.iter_batches(BATCH_ROWS, columns=wanted, use_threads=False):
            names = batch.column(wanted[0]).to_pylist()
            labels = batch.column(wanted[1]).to_pylist() if len(wanted) > 1 else repeat(None)
            for name_cell, label in zip(names, labels, strict=False):
                number += 1
                yield f"row {number} of {name!r}", name_cell, label
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        problem = str(error).splitlines()[0]
        raise InvalidRequest(f"{name!r} cannot be read as Parquet after row {number}: {problem}") from None


def _columns(found: list[str], name: str) -> NameColumns:
    position = _position(found, NAME_COLUMNS)
    if position is None:
        raise InvalidRequest(
            f"{name!r} has no column 'file_name' (columns found: {', '.join(found)[:MAX_COLUMNS_CHARS] or 'none'}); "
            "add one with the paths of the images relative to the dataset's folder"
        )
    return NameColumns(position, _position(found, LABEL_COLUMNS))


def _position(found: list[str], known: tuple[str, ...]) -> int | None:
    """The position of the first known column; case and blanks around a name do not matter."""
    names = [column.strip().casefold() for column in found]
    return next((names.index(column) for column in known if column in names), None)


def _label(value: object, place: str) -> str | None:
    try:
        return label_text(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"{place}: {error.detail}") from None
