"""What a listing of files passes over although it may be meant: other kinds of image, containers, linked folders."""

import os
from collections.abc import Iterable

from serve_app.sources import image_table, webdataset
from serve_app.sources.folder import EXTENSIONS
from serve_app.sources.listing import shown

OTHER_IMAGES = frozenset(b".j2k .svg .psd .dng .cr2 .cr3 .nef .arw .orf .rw2 .raf .tga .ppm .pgm .exr .dcm".split())
CONTAINERS = webdataset.SUFFIXES | image_table.SUFFIXES
KEPT_NAMES = 5


class LeftOut:
    """Counts what a listing leaves out, kind by kind; memory holds a few names of each kind."""

    def __init__(self, listed: frozenset[bytes]) -> None:
        self._kinds = {
            "are of a format of images that is not read": OTHER_IMAGES - EXTENSIONS - listed,
            "may hold images too and are not read; give such a file a dataset of its own": CONTAINERS - listed,
            "are images beside the files that hold the dataset's": EXTENSIONS - listed,
            "are symbolic links to folders, which are not entered; put the folders themselves there": {b"/"},
        }
        self._names: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}
        self.suffixes = listed.union(*self._kinds.values())
        """The suffixes of names that a listing should look for."""

    def add(self, name: str) -> None:
        """Count a name that is not listed; that of a linked folder ends in a slash."""
        suffix = b"/" if name.endswith("/") else os.path.splitext(os.fsencode(name))[1].lower()
        for kind, suffixes in self._kinds.items():
            if suffix in suffixes:
                self._counts[kind] = self._counts.get(kind, 0) + 1
                kept = self._names.setdefault(kind, [])
                if len(kept) < KEPT_NAMES:
                    kept.append(name)

    def notices(self) -> Iterable[str]:
        """A sentence about each kind that was left out."""
        for kind, count in self._counts.items():
            others = count - len(self._names[kind])
            more = f" and {others:,} more" if others else ""
            yield f"left out: {shown(self._names[kind])}{more} {kind}"
