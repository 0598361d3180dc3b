"""Webdataset tars: consecutive members with the same key form a sample, such as `0001.jpg` and `0001.cls`.

A listing reads only headers and the small members that hold labels. An image is later read from its place in the tar
together with its header, so that a tar that was replaced meanwhile is detected.
(format: github.com/webdataset/webdataset)
"""

import json
import os
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources.files import encode_name
from serve_app.sources.folder import EXTENSIONS
from serve_app.sources.listing import LABEL_COLUMNS, label_text

SUFFIXES = frozenset({b".tar"})
LABELS = ("cls", "txt", "json")
MAX_LABEL_BYTES = 1 << 16
MAX_LABEL_CHARS = 200
MAX_HEADER_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


class Member(NamedTuple):
    """An image in a tar: its name, its label, and the offset and number of its bytes."""

    name: str
    label: str | None
    offset: int
    size_bytes: int


def members(file: IO[bytes], name: str) -> Iterator[Member]:
    """The images in an open tar, in its order; memory grows with the number of members of one key.

    Raises:
        InvalidRequest: the file is not an uncompressed and complete tar.
    """
    key, images, labels = b"", list[tuple[str, int, int]](), dict[str, str]()
    for member in _files(file, name):
        raw = member.name.encode("utf-8", "surrogateescape")
        folder, _, base = raw.rpartition(b"/")
        if base.startswith(b"."):
            continue
        stem, _, ending = base.partition(b".")
        if (new_key := folder + b"/" + stem) != key:
            yield from _labelled(images, labels)
            key, images, labels = new_key, [], {}
        kind = ending.decode("ascii", "replace").lower()
        if os.path.splitext(base)[1].lower() in EXTENSIONS:
            images.append((encode_name(raw.removeprefix(b"./")), member.offset_data, member.size))
        elif kind in LABELS and member.size <= MAX_LABEL_BYTES:
            file.seek(member.offset_data)
            if (label := _label(kind, file.read(member.size))) is not None:
                labels[kind] = label
    yield from _labelled(images, labels)


def check_header(header: bytes, size_bytes: int) -> None:
    """Make sure that the 512 bytes before an image are the header of a member of its size.

    Raises:
        RefusedImage: they are not such a header (changed).
    """
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        found = None
    if found is None or found.size != size_bytes:
        raise RefusedImage("changed: its tar was replaced since it was listed; rescan the dataset")


def _labelled(images: list[tuple[str, int, int]], labels: dict[str, str]) -> Iterator[Member]:
    label = next((labels[kind] for kind in LABELS if kind in labels), None)
    for name, offset, size_bytes in images:
        yield Member(name, label, offset, size_bytes)


def _label(kind: str, data: bytes) -> str | None:
    """The label in a member beside the image: the member's text, or a value of its JSON object."""
    text = data.decode("utf-8", "replace").strip()
    if kind != "json":
        return text[:MAX_LABEL_CHARS] or None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[column] for column in LABEL_COLUMNS if column in value), None)
    return label_text(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _files(file: IO[bytes], name: str) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar; sparse files are left out, because their bytes are not in one piece."""
    if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
        raise InvalidRequest(f"{name!r} is compressed: images cannot be read from their place in it; gunzip it")
    file.seek(0)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member
                if member.isreg() and not member.issparse():
                    yield member
    except (tarfile.TarError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{name!r} cannot be read as a tar: {error}") from None


class _Bounded:
    """A file that reads at most `MAX_HEADER_BYTES` at once, because a header states the length of the next one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, n_bytes: int = -1) -> bytes:
        if not 0 <= n_bytes <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER_BYTES:,} bytes")
        return self._file.read(n_bytes)
