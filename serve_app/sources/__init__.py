"""Where a dataset's images come from: a folder, a COCO annotation file, or a manifest."""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from serve_app.errors import InvalidRequest
from serve_app.files import stat_files
from serve_app.records import DatasetFormat, SourceFile
from serve_app.sources import coco, folder, manifest
from serve_app.sources.listing import MAX_IMAGES, too_many_images

COCO_NAMES = (
    "annotations.json",
    "_annotations.coco.json",
    "instances*.json",
    "annotations/instances*.json",
)
MANIFEST_NAMES = ("manifest.csv", "manifest.parquet", "metadata.csv", "metadata.parquet")


def detect(
    root: Path, annotations: Path | None, wanted: Literal["auto", "folder", "coco", "manifest"] = "auto"
) -> tuple[DatasetFormat, Path | None]:
    """Find out a dataset's format and its annotation file, or check what the caller says they are.

    Without an annotation file, the names of `COCO_NAMES` and then of `MANIFEST_NAMES` are looked for in
    `root`, in this order; a file of such a name counts only when it is COCO, or has a column of file names.
    Where there is none, the dataset is a folder.

    Raises:
        InvalidRequest: the annotation file suits no format, is missing, or several could be meant.
    """
    if wanted == "folder":
        if annotations is not None:
            raise InvalidRequest("format 'folder' takes no annotations; leave them out, or use format 'auto'")
        return "folder", None
    if annotations is not None:
        return (wanted if wanted != "auto" else _format_of(annotations)), annotations
    if wanted in ("auto", "coco") and (found := _well_known_coco(root)):
        return "coco", found
    if wanted in ("auto", "manifest") and (found := _well_known_manifest(root)):
        return "manifest", found
    if wanted == "auto":
        return "folder", None
    names = COCO_NAMES if wanted == "coco" else MANIFEST_NAMES
    raise InvalidRequest(f"no {wanted} file in the folder (looked for {', '.join(names)}); name it in 'annotations'")


def scan(
    root: Path, format: DatasetFormat, annotations: Path | None, *, page_size: int = 2000
) -> Iterator[list[SourceFile]]:
    """List a dataset's images page by page.

    Files that an annotation file names are listed whether they exist or not (size -1 when not): they are
    skipped with a reason at embedding. One that it names twice is listed twice; the store keeps the first.

    Raises:
        InvalidRequest: a folder or the annotation file cannot be used, or lists over `MAX_IMAGES` images.
    """
    pages = _pages(root, format, annotations, page_size)
    n_images = 0
    for page in pages:
        n_images += len(page)
        if n_images > MAX_IMAGES:
            raise too_many_images()
        yield page


def _pages(root: Path, format: DatasetFormat, annotations: Path | None, page_size: int) -> Iterator[list[SourceFile]]:
    if format == "folder":
        files = folder.images(root)
        while page := list(islice(files, page_size)):
            yield page
        return
    if annotations is None:
        raise InvalidRequest(f"a {format} dataset needs its annotation file")
    listed = coco.images(root, annotations) if format == "coco" else manifest.images(annotations)
    while batch := list(islice(listed, page_size)):
        stats = stat_files(str(root), [image.file_name for image in batch])
        yield [SourceFile(*image, *stat) for image, stat in zip(batch, stats, strict=True)]


def _format_of(annotations: Path) -> DatasetFormat:
    """The format of an annotation file that the caller names, by its suffix."""
    if annotations.suffix.lower() == ".json":
        return "coco"
    if annotations.suffix.lower() in manifest.SUFFIXES:
        return "manifest"
    raise InvalidRequest(
        f"cannot tell the format of {annotations.name!r}: a COCO file ends in .json, a manifest in .csv, .tsv or "
        ".parquet; rename it, or say which it is in 'format'"
    )


def _well_known_coco(root: Path) -> Path | None:
    for pattern in COCO_NAMES:
        found = [path for path in sorted(root.glob(pattern)) if _is_file(path) and coco.is_coco(path)]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found)
            raise InvalidRequest(f"several COCO files are in the folder ({names}); name one in 'annotations'")
        if found:
            return found[0]
    return None


def _well_known_manifest(root: Path) -> Path | None:
    found = (root / name for name in MANIFEST_NAMES)
    return next((path for path in found if _is_file(path) and manifest.is_manifest(path)), None)


def _is_file(path: Path) -> bool:
    """Whether there is a file, and no link on the way from the (real) root that could lead out of it."""
    return os.path.isfile(path) and os.path.realpath(path) == str(path)
