"""Finds the files that an annotation file names, with their size and change mark, in folders, buckets or the web."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from serve_app.records import SourceFile
from serve_app.sources.cloud import Bucket
from serve_app.sources.files import UNKNOWN, decode_name, encode_name, stat_files
from serve_app.sources.listing import spellings
from serve_app.sources.web import Web
from serve_app.urls import WEB, Url, is_url, parse

THREADS = 16

Stat = tuple[int, int]
Stats = dict[str, Stat]


class Finder:
    """Finds named files below a root, whatever folder the names are relative to and however they are spelled.

    Args:
        stat: gives the size and change mark of each name below the root, both -1 where no file is.
        base: the annotation file's folder below the root.
        folders: the folders to which the names may be relative; the first one counts where nothing is found.
    """

    def __init__(self, stat: Callable[[list[str]], list[Stat]], base: bytes, folders: tuple[bytes, ...]) -> None:
        self._stat, self._base, self._folders = stat, base, list(folders)
        self._is_ordered = len(folders) == 1
        self._n_named = self._n_missing = 0
        self._first_missing = ""

    def find(self, names: list[str]) -> dict[str, tuple[str, Stat]]:
        """The file and its size and change mark for each name; a missing file keeps its likely name."""
        if not self._is_ordered:
            self._order(names)
        found: dict[str, tuple[str, Stat]] = {}
        missing = list(dict.fromkeys(names))
        self._n_named += len(missing)
        for folder in self._folders:
            tried = [(name, _joined(folder, form)) for name in missing for form in spellings(name, self._base)]
            stats = self._stat([file_name for _, file_name in tried])
            for (name, file_name), stat in zip(tried, stats, strict=True):
                if stat != UNKNOWN and name not in found:
                    found[name] = (file_name, stat)
            missing = [name for name in missing if name not in found]
        self._first_missing = self._first_missing or (missing[0] if missing else "")
        self._n_missing += len(missing)
        return found | {name: (_joined(self._folders[0], name), UNKNOWN) for name in missing}

    def notices(self) -> list[str]:
        """A sentence about the files that are missing so far, if there are any."""
        if not self._n_missing:
            return []
        return [
            f"{self._n_missing:,} of the {self._n_named:,} named files are not there or cannot be read "
            f"(first: {self._first_missing[:200]!r}); jobs skip them"
        ]

    def _order(self, names: list[str]) -> None:
        """Put the folder first that has most of these files; without any of them, the next page decides."""
        hits = {
            folder: sum(stat != UNKNOWN for stat in self._stat([_joined(folder, name) for name in names]))
            for folder in self._folders
        }
        self._folders.sort(key=lambda folder: -hits[folder])
        self._is_ordered = any(hits.values())


def examined(
    root: Path | Url,
    listed: Iterable[SourceFile],
    page_size: int,
    web: Web,
    *,
    base: bytes = b"",
    folders: tuple[bytes, ...] = (b"",),
    has_own_ids: bool = False,
    notices: list[str],
) -> Iterator[list[SourceFile]]:
    """Pages of listed images with the present size and change mark of their files, both -1 if examining fails.

    Args:
        root: the dataset's folder or URL.
        listed: the images as the annotation file names them.
        page_size: the number of images in a page.
        web: reads the web.
        base: as for `Finder`.
        folders: as for `Finder`.
        has_own_ids: whether the ids of images are not their file names.
        notices: gets a sentence about the files that were not found.
    """
    images = iter(listed)
    finder = Finder(_stat_below(root), base, folders)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="stat") as threads:
        while batch := list(islice(images, page_size)):
            found = _found(root, [image.file_name for image in batch], web, threads, finder)
            yield [_as_found(image, *found[image.file_name], has_own_ids=has_own_ids) for image in batch]
    notices.extend(finder.notices())


def _as_found(image: SourceFile, file_name: str, stat: Stat, *, has_own_ids: bool) -> SourceFile:
    sample_id = image.sample_id if has_own_ids else file_name
    # `dataclasses.replace` takes five times as long, and a listing is mostly this.
    return SourceFile(sample_id, file_name, image.label, *stat, place=image.place, values=image.values)


def _stat_below(root: Path | Url) -> Callable[[list[str]], list[Stat]]:
    return Bucket(root).stat if isinstance(root, Url) else lambda names: stat_files(str(root), names)


def _found(
    root: Path | Url, names: list[str], web: Web, threads: ThreadPoolExecutor, finder: Finder
) -> dict[str, tuple[str, Stat]]:
    below = [name for name in names if not is_url(name)]
    urls = {name: parse(name, with_query=True) for name in names if is_url(name)}
    found: dict[str, tuple[str, Stat]] = {}
    if isinstance(root, Url) and root.scheme in WEB:
        urls |= {name: root.child(name) for name in below}
    else:
        found |= finder.find(below)
    pages = {name: url for name, url in urls.items() if url.scheme in WEB}
    stats = dict(zip(pages, threads.map(web.stat, pages.values()), strict=True))
    stats |= _objects({name: url for name, url in urls.items() if name not in pages})
    return found | {name: (name, stat) for name, stat in stats.items()}


def _objects(urls: dict[str, Url]) -> Stats:
    """The size and change mark of objects in buckets; objects of one folder share a request."""
    folders: dict[Url, list[str]] = {}
    for name, url in urls.items():
        folders.setdefault(url.parent, []).append(name)
    stats: Stats = {}
    for folder, names in folders.items():
        stats |= zip(names, Bucket(folder).stat([urls[name].name for name in names]), strict=True)
    return stats


def _joined(folder: bytes, file_name: str) -> str:
    return encode_name(folder + b"/" + decode_name(file_name)) if folder else file_name
