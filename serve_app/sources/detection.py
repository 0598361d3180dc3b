"""Finds out the format of the dataset below a root from the names and contents of its files."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Literal, cast

from serve_app.errors import InvalidRequest
from serve_app.records import DatasetFormat
from serve_app.sources import bulk, coco, folder, image_table, manifest, webdataset
from serve_app.sources.cloud import Bucket
from serve_app.sources.listing import open_listing, skip_mark
from serve_app.sources.reading import open_container
from serve_app.sources.web import NO_WEB, Web
from serve_app.urls import WEB, Url

WantedFormat = Literal["auto", "folder", "coco", "manifest", "webdataset", "parquet", "bulk"]

COCO_NAMES = (
    "annotations.json",
    "_annotations.coco.json",
    "instances*.json",
    "annotations/instances*.json",
    "labels.json",
    "*/_annotations.coco.json",
)
MANIFEST_NAMES = (
    "manifest.csv",
    "manifest.tsv",
    "manifest.jsonl",
    "manifest.parquet",
    "metadata.csv",
    "metadata.tsv",
    "metadata.jsonl",
    "metadata.parquet",
)
OTHER_COCO_NAMES = ("*.json", "annotations/*.json")
"""Where COCO files of any other name lie; they are not read unless they are named, but they are told of."""
BEGINNING_BYTES = 1 << 20
MAX_CANDIDATES = 20
MAX_TABLES = 20
MANY_IMAGES = 1000
CONTAINERS: dict[DatasetFormat, frozenset[bytes]] = {
    "webdataset": webdataset.SUFFIXES,
    "parquet": image_table.SUFFIXES,
}
FILE_SUFFIXES = frozenset({".tar", *manifest.SUFFIXES})
"""The suffixes of files that can be the root of a dataset."""


def detect(
    root: Path | Url,
    annotations: Path | Url | None,
    wanted: WantedFormat = "auto",
    web: Web = NO_WEB,
    notices: list[str] | None = None,
) -> tuple[DatasetFormat, Path | Url | None]:
    """Find out a dataset's format and its annotation file, or check those that the caller gives.

    A folder that has parts of `constellate bulk` is of the format `bulk`, and the folder is the annotation file.

    Without an annotation file, the function looks in `root` for the names of `COCO_NAMES` and then `MANIFEST_NAMES`, in
    this order. A file with such a name counts only if it is COCO or has a column of file names; otherwise it is set
    aside, and `notices` gets a sentence that says why. If there is no such file, the dataset is a folder of images. If
    the folder has no images but has tars, or Parquet files with a column of images, the dataset consists of them.

    Raises:
        InvalidRequest: the annotation file fits no format, is missing, or is one of several; or tars or Parquet files
            hold more images than lie beside them, so that it is not clear which are meant.
    """
    aside: list[str] = []
    if wanted == "folder":
        if annotations is not None:
            raise InvalidRequest("format 'folder' takes no annotations; leave them out, or use format 'auto'")
        return "folder", None
    if annotations is not None:
        return (wanted if wanted != "auto" else _format_of(annotations, web)), annotations
    if wanted in ("auto", "bulk") and isinstance(root, Path) and bulk.is_there(root):
        return "bulk", root
    if wanted == "bulk":
        raise InvalidRequest("the folder has no parts of `constellate bulk` (part-00000.parquet, …)")
    if wanted in CONTAINERS:
        return cast(DatasetFormat, wanted), None
    if wanted in ("auto", "coco") and isinstance(root, Path) and (coco_file := _well_known_coco(root, aside)):
        return _noticed("coco", coco_file, aside, notices)
    if wanted in ("auto", "manifest") and (manifest_file := _well_known_manifest(root, web, aside)):
        return _noticed("manifest", manifest_file, aside, notices)
    aside += _perhaps_coco(root)
    if wanted == "auto":
        return _noticed(_contents(root, aside), None, aside, notices)
    names = ", ".join(COCO_NAMES if wanted == "coco" else MANIFEST_NAMES)
    found = "".join(f"; {sentence}" for sentence in aside)
    raise InvalidRequest(f"no {wanted} file in the folder (looked for {names}){found}; name it in 'annotations'")


def _noticed(
    format: DatasetFormat, annotations: Path | Url | None, aside: list[str], notices: list[str] | None
) -> tuple[DatasetFormat, Path | Url | None]:
    if notices is not None:
        notices.extend(aside)
    return format, annotations


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
        return "parquet" if _has_images(annotations, web) else "manifest"
    if suffix in manifest.SUFFIXES:
        return "manifest"
    raise InvalidRequest(
        f"cannot tell the format of {annotations.name!r}: a COCO file ends in .json, a manifest in .csv, .tsv, "
        ".jsonl or .parquet; rename it, or say which it is in 'format'"
    )


def _contents(root: Path | Url, aside: list[str]) -> DatasetFormat:
    """The format of a root without annotation file: a folder of images, else tars, else Parquet with images."""
    if isinstance(root, Url) and root.scheme in WEB:
        raise InvalidRequest("folders of the web cannot be listed; name a CSV or Parquet manifest there")
    n_images, tars, tables = _tally(root)
    held = _held(root, tars, tables, aside)
    if held is None:
        return "folder"
    format, name, images = held
    if n_images and sum(1 for _ in islice(images, n_images + 1)) > n_images:
        raise InvalidRequest(
            f"the folder has {n_images:,} images, and more of them are in files like {name!r}; say in 'format' which "
            f"are meant, 'folder' or {format!r}, or register the folder or file that holds them"
        )
    return "folder" if n_images else format


def _tally(root: Path | Url) -> tuple[int, list[str], list[str]]:
    """The number of images below the root, up to a limit, and the first tars and Parquet files."""
    n_images, tars, tables = 0, list[str](), list[str]()
    for name in _names(root, folder.EXTENSIONS.union(*CONTAINERS.values())):
        suffix = os.path.splitext(os.fsencode(name))[1].lower()
        if suffix in webdataset.SUFFIXES:
            tars.append(name)
        elif suffix in image_table.SUFFIXES:
            tables.append(name)
        else:
            n_images += 1
        if n_images > MANY_IMAGES or len(tars) > MAX_TABLES or len(tables) > MAX_TABLES:
            break  # whatever comes later, this is enough to know
    return n_images, tars, tables


Held = tuple[DatasetFormat, str, Iterator[object]]
"""The format of files that hold images, the first of them, and its images."""


def _held(root: Path | Url, tars: list[str], tables: list[str], aside: list[str]) -> Held | None:
    """The tars, or else the Parquet files, if there are any that hold images."""
    if tars:
        return "webdataset", tars[0], _listed(root, tars[0], webdataset.members)
    for name in tables:
        try:
            with closing(open_container(root, name)) as file:
                image_table.check(file, name)
        except InvalidRequest as error:
            aside.append(f"set aside: {error.detail}")
            continue
        return "parquet", name, _listed(root, name, image_table.rows)
    return None


def _listed(root: Path | Url, name: str, images: Callable[[IO[bytes], str], Iterator[object]]) -> Iterator[object]:
    """The images in a file; none if it is damaged, since then the folder's images do not depend on it."""
    try:
        with closing(open_container(root, name)) as file:
            yield from images(file, name)
    except InvalidRequest:
        return


def _names(root: Path | Url, suffixes: frozenset[bytes]) -> Iterator[str]:
    if isinstance(root, Path):
        return (file.file_name for file in folder.images(root, suffixes))
    return (found.name for found in Bucket(root).walk(suffixes))


def _has_images(annotations: Path | Url, web: Web) -> bool:
    """Whether a Parquet file has images; one that cannot be read is listed, and so refused, as a manifest."""
    try:
        with closing(open_manifest(annotations, web)) as file:
            return image_table.columns_of(file, annotations.name) is not None
    except InvalidRequest:
        return False


def _well_known_coco(root: Path, aside: list[str]) -> Path | None:
    for pattern in COCO_NAMES:
        candidates = [path for path in sorted(islice(root.glob(pattern), MAX_CANDIDATES)) if _is_file(path)]
        found = [path for path in candidates if _is_usable(partial(coco.check, path), aside)]
        if len(found) > 1:
            names = ", ".join(str(path.relative_to(root)) for path in found)
            raise InvalidRequest(f"several COCO files are in the folder ({names}); name one in 'annotations'")
        if found and found[0].parent != root and pattern.startswith("*"):
            aside.append(f"{str(found[0].relative_to(root))!r} was not read; name it in 'annotations' for its labels")
        elif found:
            return found[0]
    return None


def _perhaps_coco(root: Path | Url) -> list[str]:
    """A sentence for each local file of another name that begins like COCO."""
    if not isinstance(root, Path):
        return []
    paths = [path for pattern in OTHER_COCO_NAMES for path in sorted(islice(root.glob(pattern), MAX_CANDIDATES))]
    names = {path: str(path.relative_to(root)) for path in paths}
    return [
        f"{name!r} begins like COCO and was not read; name it in 'annotations' for its labels"
        for path, name in names.items()
        if not any(fnmatchcase(name, known) for known in COCO_NAMES) and _is_file(path) and _begins_like_coco(path)
    ]


def _begins_like_coco(path: Path) -> bool:
    try:
        with open_listing(path) as file:
            beginning = file.read(BEGINNING_BYTES)
    except InvalidRequest:
        return False
    arrays = any(f'"{name}"'.encode() in beginning for name in coco.KNOWN_BY)
    entries = b'"file_name"' in beginning or b'"image_id"' in beginning
    return beginning.lstrip().startswith(b"{") and arrays and entries


def _well_known_manifest(root: Path | Url, web: Web, aside: list[str]) -> Path | Url | None:
    if isinstance(root, Path):
        there: list[Path | Url] = [root / name for name in MANIFEST_NAMES if _is_file(root / name)]
    elif root.scheme in WEB:
        return None
    else:
        stats = zip(MANIFEST_NAMES, Bucket(root).stat(list(MANIFEST_NAMES)), strict=True)
        there = [root.child(name) for name, (size_bytes, _) in stats if size_bytes >= 0]
    return next((path for path in there if _is_usable(partial(_check_manifest, path, web), aside)), None)


def _check_manifest(path: Path | Url, web: Web) -> None:
    with closing(open_manifest(path, web)) as file:
        manifest.check(file, path.name)


def _is_usable(check: Callable[[], None], aside: list[str]) -> bool:
    """Whether a check passes; if not, the reason is kept for the person who registers."""
    try:
        check()
    except InvalidRequest as error:
        aside.append(f"set aside: {error.detail}")
        return False
    return True


def _is_file(path: Path) -> bool:
    """Whether the path is a file that is reached without a symbolic link, which could lead out of the (real) root."""
    return os.path.isfile(path) and os.path.realpath(path) == str(path)
