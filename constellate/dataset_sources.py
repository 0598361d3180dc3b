"""Folders, files and URLs as sources of datasets, named so that a service on another machine understands them."""

import os
import re
from pathlib import Path

import httpx

from constellate.records import DatasetInfo

FILE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".tar"})
"""The suffixes of files that can be the source of a dataset."""

_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


def absolute(text: str) -> str:
    """The absolute path, or the URL in the service's spelling; only the service checks whether it is allowed."""
    if not is_url(text):
        return str(Path(text).expanduser().resolve())
    scheme, _, rest = text.strip().partition("://")
    url = f"{scheme.lower()}://{rest.rstrip('/')}"
    try:
        return str(httpx.URL(url)) if scheme.lower() in ("http", "https") and rest else url
    except httpx.InvalidURL:
        return url


def is_url(text: str) -> bool:
    """Whether a text is a URL and not a path."""
    return _URL.match(text) is not None


def is_there(source: str) -> bool:
    """Whether a source exists on this machine; a URL always counts, because only the service can check it."""
    return is_url(source) or os.path.isdir(source) or (_is_file_of_images(source) and os.path.isfile(source))


def name_of(source: str) -> str:
    """The default name of a dataset with this source."""
    last = source.rstrip("/").rpartition("/")[2]
    return (os.path.splitext(last)[0] if _is_file_of_images(source) else last) or "root"


def root_of(source: str) -> str:
    """The folder or URL that the service must be allowed to read for this source."""
    return os.path.dirname(source) if _is_file_of_images(source) else source


def is_of(dataset: DatasetInfo, source: str) -> bool:
    """Whether a dataset was made from this source: its folder, or the file that names or holds its images."""
    if dataset["format"] == "bulk":  # its root is where the images lie, which may be a dataset of its own
        return source == dataset["annotations"]
    if dataset["format"] in ("webdataset", "parquet"):
        return source == (dataset["annotations"] or dataset["root"])
    return source in (dataset["root"], dataset["annotations"])


def _is_file_of_images(source: str) -> bool:
    named_so = os.path.splitext(source)[1].lower() in FILE_SUFFIXES
    return named_so and (is_url(source) or not os.path.isdir(source))
