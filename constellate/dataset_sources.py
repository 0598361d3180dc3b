"""What a user means by a folder, a file or a URL, told from this machine to a service that may run elsewhere."""

import os
import re
from pathlib import Path

import httpx

from constellate.records import DatasetInfo

FILE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".tar"})
"""Endings of files that make a dataset by themselves."""

_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")


def absolute(text: str) -> str:
    """A path as it reads from anywhere, or a URL as the service spells it; whether it takes it, the service says."""
    if not is_url(text):
        return str(Path(text).expanduser().resolve())
    scheme, _, rest = text.strip().partition("://")
    url = f"{scheme.lower()}://{rest.rstrip('/')}"
    try:
        return str(httpx.URL(url)) if scheme.lower() in ("http", "https") and rest else url
    except httpx.InvalidURL:
        return url


def is_url(text: str) -> bool:
    """Whether a text means a URL and not a path."""
    return _URL.match(text) is not None


def is_there(source: str) -> bool:
    """Whether a source can be a dataset, as far as this machine can tell: behind a URL there may be anything."""
    return is_url(source) or os.path.isdir(source) or (_is_file_of_images(source) and os.path.isfile(source))


def name_of(source: str) -> str:
    """What a dataset of this source is called unless its user says otherwise."""
    last = source.rstrip("/").rpartition("/")[2]
    return (os.path.splitext(last)[0] if _is_file_of_images(source) else last) or "root"


def root_of(source: str) -> str:
    """The folder or URL that a service must be allowed to read for this source."""
    return os.path.dirname(source) if _is_file_of_images(source) else source


def is_of(dataset: DatasetInfo, source: str) -> bool:
    """Whether a dataset was made from this source: its folder, or the file that names or holds its images."""
    if dataset["format"] in ("webdataset", "parquet"):
        return source == (dataset["annotations"] or dataset["root"])
    return source in (dataset["root"], dataset["annotations"])


def _is_file_of_images(source: str) -> bool:
    named_so = os.path.splitext(source)[1].lower() in FILE_SUFFIXES
    return named_so and (is_url(source) or not os.path.isdir(source))
