"""What a user means by a folder, a file or a URL, told from this machine to a service that may run elsewhere."""

import os
from pathlib import Path

from serve_app.answers import DatasetInfo
from serve_app.urls import is_url, parse

FILE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".tar"})
"""Endings of files that make a dataset by themselves (`sources.detection`, which this process need not load)."""


def absolute(text: str) -> str:
    """A path as it reads from anywhere, or a URL in its one spelling. Raises `InvalidRequest` for no URL of ours."""
    return str(parse(text)) if is_url(text) else str(Path(text).expanduser().resolve())


def is_there(source: str) -> bool:
    """Whether a source can be a dataset, as far as this machine can tell: behind a URL there may be anything."""
    return is_url(source) or os.path.isdir(source) or (_is_file_of_images(source) and os.path.isfile(source))


def name_of(source: str) -> str:
    """What a dataset of this source is called unless its user says otherwise."""
    last = source.rstrip("/").rpartition("/")[2]
    return (os.path.splitext(last)[0] if _is_file_of_images(source) else last) or "root"


def root_of(source: str) -> str:
    """The folder or URL that a service must be allowed to read for this source."""
    if is_url(source):
        url = parse(source)
        return str(url.parent if _is_file_of_images(source) else url)
    return os.path.dirname(source) if _is_file_of_images(source) else source


def is_of(dataset: DatasetInfo, source: str) -> bool:
    """Whether a dataset was made from this source: its folder, or the file that names or holds its images."""
    if dataset["format"] in ("webdataset", "parquet"):
        return source == (dataset["annotations"] or dataset["root"])
    return source in (dataset["root"], dataset["annotations"])


def _is_file_of_images(source: str) -> bool:
    named_so = os.path.splitext(source)[1].lower() in FILE_SUFFIXES
    return named_so and (is_url(source) or not os.path.isdir(source))
