"""The sources of a dataset's images: a folder or bucket, an annotation file, tars, or Parquet files with images."""

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO

from serve_app.errors import InvalidRequest
from serve_app.records import DatasetFormat, SourceFile
from serve_app.sources import bulk, coco, folder, image_table, manifest, webdataset
from serve_app.sources.cloud import Bucket
from serve_app.sources.detection import CONTAINERS, FILE_SUFFIXES, WantedFormat, detect, open_manifest
from serve_app.sources.examination import examined
from serve_app.sources.files import MAX_MTIME_NS, UNKNOWN, encode_name, stat_files
from serve_app.sources.left_out import LeftOut
from serve_app.sources.listing import MAX_IMAGES, folder_of, shown, too_many_images
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
    notices: list[str] | None = None,
) -> Iterator[list[SourceFile]]:
    """List a dataset's images page by page.

    A file that an annotation file names is listed even if it does not exist (its size is -1 then); the embed job skips
    it with a reason. A file that is named twice is listed twice; the store keeps the first. `notices` gets a sentence
    about each kind of thing that was left out.

    Raises:
        InvalidRequest: a folder or the annotation file cannot be used, or lists over `MAX_IMAGES` images.
    """
    n_images = 0
    for page in _pages(root, format, annotations, page_size, web, [] if notices is None else notices):
        n_images += len(page)
        if n_images > MAX_IMAGES:
            raise too_many_images()
        yield page


def _pages(
    root: Path | Url,
    format: DatasetFormat,
    annotations: Path | Url | None,
    page_size: int,
    web: Web,
    notices: list[str],
) -> Iterator[list[SourceFile]]:
    if format in CONTAINERS or format == "folder":
        files = (
            _contained(root, format, annotations, notices)
            if format in CONTAINERS
            else _files(root, folder.EXTENSIONS, notices)
        )
        while page := list(islice(files, page_size)):
            yield page
        return
    if annotations is None:
        raise InvalidRequest(f"a {format} dataset needs its annotation file")
    if format == "bulk":
        yield from _in_parts(root, annotations, page_size, web, notices)
        return
    if format == "manifest":
        yield from _named(root, annotations, page_size, web, notices)
        return
    if isinstance(root, Url) or isinstance(annotations, Url):
        raise InvalidRequest("COCO files are read from folders of this machine only; write a manifest instead")
    base, folders = folder_of(annotations, root), coco.folders(root, annotations)
    listed = coco.images(root, annotations, notices)
    yield from examined(root, listed, page_size, web, base=base, folders=folders, has_own_ids=True, notices=notices)


def _named(
    root: Path | Url, annotations: Path | Url, page_size: int, web: Web, notices: list[str]
) -> Iterator[list[SourceFile]]:
    """The images that a manifest names; names are relative to the root, or else to the manifest's folder."""
    folder = root if isinstance(root, Path) else None
    base = folder_of(annotations, folder) if folder is not None and isinstance(annotations, Path) else b""
    with closing(open_manifest(annotations, web)) as file:
        listed = manifest.images(file, annotations.name, web.allows, root=folder, base=base, notices=notices)
        folders = (b"", base) if base else (b"",)
        yield from examined(root, listed, page_size, web, base=base, folders=folders, notices=notices)


def _in_parts(
    root: Path | Url, parts: Path | Url, page_size: int, web: Web, notices: list[str]
) -> Iterator[list[SourceFile]]:
    """The images that parts of `constellate bulk` name. Where the service may not read them, they are not examined."""
    if isinstance(parts, Url):
        raise InvalidRequest("parts of `constellate bulk` are read from folders of this machine only")
    listed = bulk.images(bulk.parts(parts), web.allows, notices)
    if web.reads(root):
        yield from examined(root, listed, page_size, web, notices=notices)
        return
    while page := list(islice(listed, page_size)):
        yield page
    notices.append(
        f"the images lie in {root}, which is not below one of DATASET_ROOTS: search and map work, pictures are refused"
    )


def _files(root: Path | Url, suffixes: frozenset[bytes], notices: list[str]) -> Iterator[SourceFile]:
    """Every file below the root with one of the suffixes; its folder is its label."""
    left_out = LeftOut(suffixes)
    if isinstance(root, Path):
        files = folder.images(root, left_out.suffixes, left_out.add)
    else:
        found = _bucket(root).walk(left_out.suffixes)
        files = (SourceFile(name, name, name.rpartition("/")[0] or None, size, mark) for name, size, mark in found)
    for file in files:
        if os.path.splitext(os.fsencode(file.file_name))[1].lower() in suffixes:
            yield file
        else:
            left_out.add(file.file_name)
    notices.extend(left_out.notices())


def _contained(
    root: Path | Url, format: DatasetFormat, annotations: Path | Url | None, notices: list[str]
) -> Iterator[SourceFile]:
    """The images in the tars or Parquet files below the root, or in the one file that `annotations` names."""
    if annotations is not None:
        files = iter([_container(root, annotations)])
    else:
        files = _files(root, CONTAINERS[format], notices)
    if format == "webdataset":
        for file in files:
            yield from _members(root, file)
        return
    yield from _tables(root, files, notices, is_named=annotations is not None)


def _tables(
    root: Path | Url, files: Iterator[SourceFile], notices: list[str], *, is_named: bool
) -> Iterator[SourceFile]:
    """The images in Parquet files; a file without images is left out if others have some, and was not named."""
    without: list[str] = []
    has_images = False
    for file in files:
        with closing(open_container(root, file.file_name)) as opened:
            if not is_named and image_table.columns_of(opened, file.file_name) is None:
                without.append(file.file_name)
                continue
            opened.seek(0)
            has_images = True
            yield from _rows(file, opened, notices)
    if without and not has_images:
        with closing(open_container(root, without[0])) as opened:
            image_table.check(opened, without[0])
    elif without:
        notices.append(f"left out: {shown(without)} have no column of images")


def _members(root: Path | Url, tar: SourceFile) -> Iterator[SourceFile]:
    with closing(open_container(root, tar.file_name)) as opened:
        for member in webdataset.members(opened, tar.file_name):
            image = f"{tar.file_name}/{member.name}"
            place = Place("tar", member.offset, member.size_bytes, tar.file_name, member.mark)
            time = _moved(tar.mtime_ns, member.mark)
            yield SourceFile(image, image, member.label, member.size_bytes, time, str(place))


def _rows(table: SourceFile, opened: IO[bytes], notices: list[str]) -> Iterator[SourceFile]:
    """The rows with images. Their size is unknown until they are read; a size of 0 means that their file exists."""
    mark = image_table.mark_of(opened, table.file_name)
    for row in image_table.rows(opened, table.file_name, notices):
        image = f"{table.file_name}/{row.number}"
        place = Place("row", row.group, row.row, table.file_name, mark)
        moved = _moved(table.mtime_ns, mark)
        yield SourceFile(image, image, row.label, 0, moved, str(place), values=row.values)


def _moved(mtime_ns: int, mark: str) -> int:
    """A container's time of change, moved by up to 4.3 s that tell a mark (a CRC-32 in hexadecimal) from others.

    Another image in the same place of a container of equal size and time counts as changed by it, in jobs, thumbnails
    and entity tags.
    """
    return min(mtime_ns + int(mark, 16), MAX_MTIME_NS)


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
