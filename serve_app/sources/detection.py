"""Finds out the format of the dataset below a root from the names and contents of its files."""

import os
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Literal, cast

from serve_app.errors import InvalidRequest
from serve_app.records import DatasetFormat
from serve_app.sources import coco, folder, image_table, manifest, webdataset
from serve_app.sources.cloud import Bucket
from serve_app.sources.listing import open_listing, skip_mark
from serve_app.sources.reading import open_container
from serve_app.sources.web import NO_WEB, Web
from serve_app.urls import WEB, Url

WantedFormat = Literal["auto", "folder", "coco", "manifest", "webdataset", "parquet"]

COCO_NAMES = (
    "annotations.json",
    "_annotations.coco.json",
    "instances*.json",
    "annotations/instances*.json",
)
MANIFEST_NAMES = ("manifest.csv", "manifest.parquet", "metadata.csv", "metadata.parquet")
CONTAINERS: dict[DatasetFormat, frozenset[bytes]] = {
    "webdataset": webdataset.SUFFIXES,
    "parquet": image_table.SUFFIXES,
}
FILE_SUFFIXES = frozenset({".tar", *manifest.SUFFIXES})
"""The suffixes of files that can be the root of a dataset."""


def detect(
    root: Path | Url, annotations: Path | Url | None, wanted: WantedFormat = "auto", web: Web = NO_WEB
) -> tuple[DatasetFormat, Path | Url | None]:
    """Find out a dataset's format and its annotation file, or check those that the caller gives.

    Without an annotation file, the function looks in `root` for the names of `COCO_NAMES` and then `MANIFEST_NAMES`, in
    this order. A file with such a name counts only if it is COCO or has a column of file names. If there is no such
    file, the dataset is a folder of images. If the folder has no images but has tars, or Parquet files with a column of
    images, the dataset consists of them.

    Raises:
        InvalidRequest: the annotation file fits no format, is missing, or is one of several.
    """
    if wanted == "folder":
        if annotations is not None:
            raise InvalidRequest("format 'folder' takes no annotations; leave them out, or use format 'auto'")
        return "folder", None
    if annotations is not None:
        return (wanted if wanted != "auto" else _format_of(annotations, web)), annotations
    if wanted in CONTAINERS:
        return cast(DatasetFormat, wanted), None
    if wanted in ("auto", "coco") and isinstance(root, Path) and (coco_file := _well_known_coco(root)):
        return "coco", coco_file
    if wanted in ("auto", "manifest") and (manifest_file := _well_known_manifest(root, web)):
        return "manifest", manifest_file
    if wanted == "auto":
        return _contents(root), None
    names = COCO_NAMES if wanted == "coco" else MANIFEST_NAMES
    raise InvalidRequest(f"no {wanted} file in the folder (looked for {', '.join(names)}); name it in 'annotations'")


def open_manifest(annotations: Path | Url, web: Web) -> IO[bytes]:
    """Open a manifest and skip its UTF-8 mark, if it has one. Raises `InvalidRequest`."""
    if isinstance(annotations, Path):
        return open_listing(annotations)
    is_page = annotations.scheme in WEB
    file = web.open(annotations) if is_page else Bucket(annotations.parent).open(annotations.name)
    skip_mark(file)
    return file


def _format_of(annotations: Path | Url, web: Web) -> DatasetFormat:
    """The format of the annotation file that the caller names; its suffix decides, and for Parquet its columns."""
    suffix = os.path.splitext(annotations.name)[1].lower()
    if suffix == ".json":
        return "coco"
    if suffix == ".tar":
        return "webdataset"
    if suffix == ".parquet":
        return "parquet" if _has_images(lambda: open_manifest(annotations, web), annotations.name) else "manifest"
    if suffix in manifest.SUFFIXES:
        return "manifest"
    raise InvalidRequest(
        f"cannot tell the format of {annotations.name!r}: a COCO file ends in .json, a manifest in .csv, .tsv or "
        ".parquet; rename it, or say which it is in 'format'"
    )


def _contents(root: Path | Url) -> DatasetFormat:
    """The format of a root without annotation file: a folder of images, else tars, else Parquet with images."""
    if isinstance(root, Url) and root.scheme in WEB:
        raise InvalidRequest("folders of the web cannot be listed; name a CSV or Parquet manifest there")
    if _first(root, folder.EXTENSIONS) is not None:
        return "folder"
    if _first(root, webdataset.SUFFIXES) is not None:
        return "webdataset"
    table = _first(root, image_table.SUFFIXES)
    if table is not None and _has_images(lambda: open_container(root, table), table):
        return "parquet"
    return "folder"


def _first(root: Path | Url, suffixes: frozenset[bytes]) -> str | None:
    """The first file below the root whose name has one of the suffixes."""
    if isinstance(root, Path):
        return next((file.file_name for file in islice(folder.images(root, suffixes), 1)), None)
    return next((found.name for found in Bucket(root).walk(suffixes)), None)


def _has_images(open_file: Callable[[], IO[bytes]], name: str) -> bool:
    try:
        with closing(open_file()) as file:
            return image_table.columns_of(file, name) is not None
    except InvalidRequest:
        return False


def _well_known_coco(root: Path) -> Path | None:
    for pattern in COCO_NAMES:
        found = [path for path in sorted(root.glob(pattern)) if _is_file(path) and coco.is_coco(path)]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found)
            raise InvalidRequest(f"several COCO files are in the folder ({names}); name one in 'annotations'")
        if found:
            return found[0]
    return None


def _well_known_manifest(root: Path | Url, web: Web) -> Path | Url | None:
    if isinstance(root, Path):
        found = (root / name for name in MANIFEST_NAMES)
        return next((path for path in found if _is_file(path) and manifest.is_manifest(path)), None)
    if root.scheme in WEB:
        return None
    there = Bucket(root).stat(list(MANIFEST_NAMES))
    urls = [root.child(name) for name, (size_bytes, _) in zip(MANIFEST_NAMES, there, strict=True) if size_bytes >= 0]
    return next((url for url in urls if _is_manifest(url, web)), None)


def _is_manifest(url: Url, web: Web) -> bool:
    try:
        with closing(open_manifest(url, web)) as file:
            manifest.names_images(file, url.name)
    except InvalidRequest:
        return False
    return True


def _is_file(path: Path) -> bool:
    """Whether the path is a file that is reached without a symbolic link, which could lead out of the (real) root."""
    return os.path.isfile(path) and os.path.realpath(path) == str(path)
