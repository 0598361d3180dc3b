"""Finds the size and change mark of the files that an annotation file names, in folders, buckets or the web."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from serve_app.records import SourceFile
from serve_app.sources.cloud import Bucket
from serve_app.sources.files import stat_files
from serve_app.sources.web import Web
from serve_app.urls import WEB, Url, is_url, parse

THREADS = 16

Stats = dict[str, tuple[int, int]]


def examined(root: Path | Url, listed: Iterable[SourceFile], page_size: int, web: Web) -> Iterator[list[SourceFile]]:
    """Pages of listed images with the present size and change mark of their files, both -1 if examining fails."""
    images = iter(listed)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="stat") as threads:
        while batch := list(islice(images, page_size)):
            stats = _stats(root, [image.file_name for image in batch], web, threads)
            yield [SourceFile(i.sample_id, i.file_name, i.label, *stats[i.file_name]) for i in batch]


def _stats(root: Path | Url, names: list[str], web: Web, threads: ThreadPoolExecutor) -> Stats:
    below = [name for name in names if not is_url(name)]
    urls = {name: parse(name, with_query=True) for name in names if is_url(name)}
    stats: Stats = {}
    if isinstance(root, Path):
        stats |= zip(below, stat_files(str(root), below), strict=True)
    elif root.scheme in WEB:
        urls |= {name: root.child(name) for name in below}
    else:
        stats |= zip(below, Bucket(root).stat(below), strict=True)
    pages = {name: url for name, url in urls.items() if url.scheme in WEB}
    stats |= zip(pages, threads.map(web.stat, pages.values()), strict=True)
    return stats | _objects({name: url for name, url in urls.items() if name not in pages})


def _objects(urls: dict[str, Url]) -> Stats:
    """The size and change mark of objects in buckets; objects of one folder share a request."""
    folders: dict[Url, list[str]] = {}
    for name, url in urls.items():
        folders.setdefault(url.parent, []).append(name)
    stats: Stats = {}
    for folder, names in folders.items():
        stats |= zip(names, Bucket(folder).stat([urls[name].name for name in names]), strict=True)
    return stats
