"""Webdataset tars: consecutive members with the same key form a sample, such as `0001.jpg` and `0001.cls`.

A listing reads only headers and the small members that hold labels. An image is later read from its place in the tar
together with its header, so that a tar that was replaced meanwhile is detected.
(format: github.com/webdataset/webdataset)
"""

import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources.files import encode_name
from serve_app.sources.folder import EXTENSIONS
from serve_app.sources.listing import LABEL_COLUMNS, MAX_IMAGES, label_text, too_many_images

SUFFIXES = frozenset({b".tar"})
LABELS = ("cls", "txt", "json")
MAX_LABEL_BYTES = 1 << 16
MAX_LABEL_CHARS = 200
MAX_HEADER_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


class Member(NamedTuple):
    """An image in a tar: its name, its label, the offset and number of its bytes, and the mark of its header."""

    name: str
    label: str | None
    offset: int
    size_bytes: int
    mark: str


class _Image(NamedTuple):
    name: str
    offset: int
    size_bytes: int
    mark: str


def members(file: IO[bytes], name: str) -> Iterator[Member]:
    """The images in an open tar, in its order; memory grows with the number of members of one key.

    Raises:
        InvalidRequest: the file is not an uncompressed and complete tar.
    """
    key, images, labels = b"", list[_Image](), dict[str, str]()
    for member, mark in _files(file, name):
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
            images.append(_Image(encode_name(raw.removeprefix(b"./")), member.offset_data, member.size, mark))
            if len(images) > MAX_IMAGES:
                raise too_many_images()
        elif kind in LABELS and member.size <= MAX_LABEL_BYTES:
            file.seek(member.offset_data)
            if (label := _label(kind, file.read(member.size))) is not None:
                labels[kind] = label
    yield from _labelled(images, labels)


def check_header(header: bytes, size_bytes: int, mark: str = "") -> None:
    """Make sure that the 512 bytes before an image are the header of the listed member.

    Args:
        header: the bytes.
        size_bytes: the size of the member.
        mark: `Member.mark`; nothing if it is unknown, because an older version of the service listed the tar.

    Raises:
        RefusedImage: they are not such a header (changed).
    """
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError):
        found = None
    if found is None or found.size != size_bytes or (mark and _mark(header) != mark):
        raise RefusedImage("changed: its tar was replaced since it was listed; rescan the dataset")


def _mark(header: bytes) -> str:
    """A text that tells a member's header, its name included, from that of another member."""
    return f"{zlib.crc32(header):08x}"


def _labelled(images: list[_Image], labels: dict[str, str]) -> Iterator[Member]:
    label = next((labels[kind] for kind in LABELS if kind in labels), None)
    for image in images:
        yield Member(image.name, label, image.offset, image.size_bytes, image.mark)


def _label(kind: str, data: bytes) -> str | None:
    """The label in a member beside the image: the member's text, or a value of its JSON object."""
    text = data.decode("utf-8", "replace").strip()
    if kind != "json":
        return text[:MAX_LABEL_CHARS] or None
    try:
        value = json.loads(text)
        if isinstance(value, dict):
            value = next((value[column] for column in LABEL_COLUMNS if column in value), None)
        return label_text(value)
    except (ValueError, RecursionError, InvalidRequest):
        return None


def _files(file: IO[bytes], name: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The regular files of a tar, each with its header's mark.

    Sparse files are left out, because their bytes are not in one piece.
    """
    if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
        raise InvalidRequest(f"{name!r} is compressed: images cannot be read from their place in it; gunzip it")
    size_bytes = file.seek(0, 2)
    file.seek(0)
    try:
        headers = _Headers(file)
        with tarfile.open(fileobj=cast(IO[bytes], headers), mode="r:") as tar:
            for member in _forward(tar, headers, size_bytes):
                if member.isreg() and not member.issparse():
                    yield member, _mark(headers.last)
    # tarfile raises the last five for headers that lie about numbers and lengths.
    except (tarfile.TarError, RecursionError, ValueError, OverflowError, IndexError, KeyError, OSError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InvalidRequest(f"{name!r} cannot be read as a tar: {problem}") from None


def _forward(tar: tarfile.TarFile, headers: "_Headers", size_bytes: int) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, each behind the one before it and within the file's bytes."""
    at = 0
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member
        headers.n_bytes = 0
        if member.size < 0 or member.offset_data < at or "\0" in member.name:
            raise tarfile.ReadError(f"the header before byte {max(0, member.offset_data):,} is damaged")
        if member.isreg() and member.offset_data + member.size > size_bytes:
            raise tarfile.ReadError(f"it ends before the {member.size:,} bytes of a member do")
        at = member.offset_data
        yield member


class _Headers:
    """A file that gives headers of at most `MAX_HEADER_BYTES`, because a header states the length of the next one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.n_bytes = 0
        self.last = b""
        """The last header, which is that of the member that tarfile gives."""

    def read(self, n_bytes: int = -1) -> bytes:
        # A read at the end counts too: tarfile looks there for the rest of a list for ever.
        self.n_bytes += max(n_bytes, 1)
        if n_bytes < 0 or self.n_bytes > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER_BYTES:,} bytes")
        data = self._file.read(n_bytes)
        if n_bytes == tarfile.BLOCKSIZE:
            self.last = data
        return data
