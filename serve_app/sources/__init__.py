"""The sources of a dataset's images: a folder or bucket, an annotation file, tars, or Parquet files with images."""

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from serve_app.errors import InvalidRequest
from serve_app.records import DatasetFormat, SourceFile
from serve_app.sources import coco, folder, image_table, manifest, webdataset
from serve_app.sources.cloud import Bucket
from serve_app.sources.detection import CONTAINERS, FILE_SUFFIXES, WantedFormat, detect, open_manifest
from serve_app.sources.examination import examined
from serve_app.sources.files import UNKNOWN, encode_name, stat_files
from serve_app.sources.listing import MAX_IMAGES, too_many_images
from serve_app.sources.reading import Place, open_container
from serve_app.sources.web import NO_WEB, Web
from serve_app.urls import WEB, Url

__all__ = ["FILE_SUFFIXES", "WantedFormat", "detect", "scan"]


def scan(
    root: Path | Url,
    format: DatasetFormat,
    annotations: Path | Url | None,
    *,
    page_size: int = 2000,
    web: Web = NO_WEB,
) -> Iterator[list[SourceFile]]:
    """List a dataset's images page by page.

    A file that an annotation file names is listed even if it does not exist (its size is -1 then); the embed job skips
    it with a reason. A file that is named twice is listed twice; the store keeps the first.

    Raises:
        InvalidRequest: a folder or the annotation file cannot be used, or lists over `MAX_IMAGES` images.
    """
    n_images = 0
    for page in _pages(root, format, annotations, page_size, web):
        n_images += len(page)
        if n_images > MAX_IMAGES:
            raise too_many_images()
        yield page


def _pages(
    root: Path | Url, format: DatasetFormat, annotations: Path | Url | None, page_size: int, web: Web
) -> Iterator[list[SourceFile]]:
    if format in CONTAINERS or format == "folder":
        files = _contained(root, format, annotations) if format in CONTAINERS else _files(root, folder.EXTENSIONS)
        while page := list(islice(files, page_size)):
            yield page
        return
    if annotations is None:
        raise InvalidRequest(f"a {format} dataset needs its annotation file")
    if format == "manifest":
        with closing(open_manifest(annotations, web)) as file:
            yield from examined(root, manifest.images(file, annotations.name, web.allows), page_size, web)
        return
    if isinstance(root, Url) or isinstance(annotations, Url):
        raise InvalidRequest("COCO files are read from folders of this machine only; write a manifest instead")
    yield from examined(root, coco.images(root, annotations), page_size, web)


def _files(root: Path | Url, suffixes: frozenset[bytes]) -> Iterator[SourceFile]:
    """Every file below the root with one of the suffixes; its folder is its label."""
    if isinstance(root, Path):
        yield from folder.images(root, suffixes)
        return
    for name, size_bytes, mark in _bucket(root).walk(suffixes):
        yield SourceFile(name, name, name.rpartition("/")[0] or None, size_bytes, mark)


def _contained(root: Path | Url, format: DatasetFormat, annotations: Path | Url | None) -> Iterator[SourceFile]:
    """The images in the tars or Parquet files below the root, or in the one file that `annotations` names."""
    files = iter([_container(root, annotations)]) if annotations is not None else _files(root, CONTAINERS[format])
    images = _members if format == "webdataset" else _rows
    for file in files:
        yield from images(root, file)


def _members(root: Path | Url, tar: SourceFile) -> Iterator[SourceFile]:
    with closing(open_container(root, tar.file_name)) as opened:
        for member in webdataset.members(opened, tar.file_name):
            image = f"{tar.file_name}/{member.name}"
            place = Place("tar", member.offset, member.size_bytes, tar.file_name)
            yield SourceFile(image, image, member.label, member.size_bytes, tar.mtime_ns, str(place))


def _rows(root: Path | Url, table: SourceFile) -> Iterator[SourceFile]:
    """The rows with images. Their size is unknown until they are read; a size of 0 means that their file exists."""
    with closing(open_container(root, table.file_name)) as opened:
        for row in image_table.rows(opened, table.file_name):
            image, place = f"{table.file_name}/{row.number}", Place("row", row.group, row.row, table.file_name)
            yield SourceFile(image, image, row.label, 0, table.mtime_ns, str(place))


def _container(root: Path | Url, annotations: Path | Url) -> SourceFile:
    """The tar or Parquet file that `annotations` names."""
    name = _name_below(root, annotations)
    [stat] = _bucket(root).stat([name]) if isinstance(root, Url) else stat_files(str(root), [name])
    if stat == UNKNOWN:
        raise InvalidRequest(f"{name!r} is not there or cannot be read")
    return SourceFile(name, name, None, *stat)


def _name_below(root: Path | Url, annotations: Path | Url) -> str:
    if isinstance(root, Path) and isinstance(annotations, Path) and annotations.is_relative_to(root):
        return encode_name(os.fsencode(annotations.relative_to(root)))
    if isinstance(root, Url) and isinstance(annotations, Url) and annotations.is_below(root):
        return "/".join(annotations.parts[len(root.parts) :])
    raise InvalidRequest("a tar or Parquet file must lie below the dataset's root")


def _bucket(root: Url) -> Bucket:
    if root.scheme in WEB:
        raise InvalidRequest("folders of the web cannot be listed; name a CSV or Parquet manifest there")
    return Bucket(root)
