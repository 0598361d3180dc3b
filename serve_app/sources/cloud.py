"""Buckets: S3, Google Cloud Storage, Azure and the Hugging Face hub, through the file systems of pyarrow.

Keys come from the environment, in the variables that each provider's own tools use. A client can pass only the names
of a bucket and its objects to a file system. Listings are compared by each object's size and time of change; the hub
has the blob's id in place of the time.
"""

import io
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from serve_app.errors import InvalidRequest
from serve_app.sources.files import UNKNOWN, check_size, decode_name, encode_name
from serve_app.sources.listing import MAX_DEPTH, is_left_out
from serve_app.sources.remote import FAILURES, change_mark, reading, unreadable, unusable
from serve_app.sources.shortage import raise_shortage
from serve_app.urls import Url

CONNECT_S = 10.0
RETRY_S = 30.0


class Found(NamedTuple):
    """A listed object: its name below the root, size in bytes and change mark."""

    name: str
    size_bytes: int
    mark: int


def _s3(bucket: str) -> pafs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not endpoint and not region:
        region = pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(
        anonymous=os.environ.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE", "1"),
        region=region,
        endpoint_override=endpoint,
        connect_timeout=CONNECT_S,
    )


def _gs(bucket: str) -> pafs.FileSystem:
    # By default, this file system retries for a quarter of an hour.
    return pafs.GcsFileSystem(retry_time_limit=timedelta(seconds=RETRY_S))


def _az(container: str) -> pafs.FileSystem:
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise InvalidRequest("az:// needs AZURE_STORAGE_ACCOUNT in the environment of the service")
    keys = {"account_key": os.environ.get("AZURE_STORAGE_KEY"), "sas_token": os.environ.get("AZURE_STORAGE_SAS_TOKEN")}
    return pafs.AzureFileSystem(account, **{name: key for name, key in keys.items() if key})


def _hf(kind: str) -> pafs.FileSystem:
    from huggingface_hub import HfFileSystem  # it reads HF_TOKEN and HF_ENDPOINT from the environment

    return pafs.PyFileSystem(HubHandler(HfFileSystem(skip_instance_cache=True, use_listings_cache=False)))


class HubHandler(pafs.FSSpecHandler):  # type: ignore[misc]
    """The hub's file system for pyarrow, with a mark made of the blob's id in place of a time of change."""

    @staticmethod
    def _create_file_info(path: str, info: dict[str, Any]) -> pafs.FileInfo:
        if info["type"] != "file":
            return pafs.FileInfo(path, pafs.FileType.Directory)
        mark = change_mark(str(info.get("blob_id") or info.get("size")))
        return pafs.FileInfo(path, pafs.FileType.File, size=info["size"], mtime_ns=mark)


FILE_SYSTEMS: dict[str, Callable[[str], pafs.FileSystem]] = {"s3": _s3, "gs": _gs, "az": _az, "hf": _hf}


@lru_cache(maxsize=32)
def _file_system(scheme: str, bucket: str) -> pafs.FileSystem:
    try:
        return FILE_SYSTEMS[scheme](bucket)
    except ImportError:
        raise InvalidRequest(
            f"this pyarrow was built without {scheme}://; the wheels have it: pip install --force-reinstall pyarrow"
        ) from None


class Bucket:
    """The objects below a URL. Names are relative to the URL and `/`-separated, and spelled by `files.encode_name`."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._base = "/".join((url.host, *url.parts))

    def walk(self, suffixes: frozenset[bytes]) -> Iterator[Found]:
        """Every object whose name has one of the suffixes, ordered by name; memory grows with the largest folder.

        Raises:
            InvalidRequest: a folder cannot be listed, or folders nest deeper than `MAX_DEPTH`.
        """
        try:
            yield from self._walk(_file_system(self._url.scheme, self._url.host), self._base, suffixes, depth=0)
        except FAILURES as error:
            raise unusable(error, "the dataset's folder") from None

    def _walk(self, system: pafs.FileSystem, folder: str, suffixes: frozenset[bytes], *, depth: int) -> Iterator[Found]:
        if depth > MAX_DEPTH:
            raise InvalidRequest(f"folders nest deeper than {MAX_DEPTH}; register a folder further down")
        infos = system.get_file_info(pafs.FileSelector(folder))
        for info in sorted(infos, key=lambda info: info.path + "/" * (info.type == pafs.FileType.Directory)):
            name = info.path.rpartition("/")[2].encode("utf-8", "surrogateescape")
            if is_left_out(name):
                continue
            if info.type == pafs.FileType.Directory:
                yield from self._walk(system, info.path, suffixes, depth=depth + 1)
            elif os.path.splitext(name)[1].lower() in suffixes:
                below = info.path[len(self._base) + 1 :].encode("utf-8", "surrogateescape")
                yield Found(encode_name(below), *_stat(info))

    def stat(self, names: list[str]) -> list[tuple[int, int]]:
        """The size and change mark of each object; both are -1 if the object is missing or cannot be examined.

        Raises:
            MemoryError, Unavailable: this process has not got enough memory or descriptors.
        """
        try:
            system = _file_system(self._url.scheme, self._url.host)
            return [_stat(info) for info in system.get_file_info([self._path(name) for name in names])]
        except FAILURES as error:
            raise_shortage(error)
            return [UNKNOWN] * len(names)

    def read(self, name: str, *, start: int = 0, n_bytes: int | None = None, max_bytes: int) -> bytes:
        """The bytes of an object, or `n_bytes` of them from `start` on.

        Raises:
            RefusedImage: the reason is not_found, permission_denied, unreachable or too_large.
        """
        try:
            with _file_system(self._url.scheme, self._url.host).open_input_file(self._path(name)) as file:
                wanted = file.size() if n_bytes is None else n_bytes
                check_size(wanted, max_bytes)
                return bytes(file.read_at(wanted, start))
        except FAILURES as error:
            raise unreadable(error) from None

    def open(self, name: str) -> io.BufferedReader:
        """Open an object for reading at any position.

        Raises:
            InvalidRequest: the object cannot be opened.
        """
        try:
            system = _file_system(self._url.scheme, self._url.host)
            return reading(lambda: system.open_input_file(self._path(name)))
        except FAILURES as error:
            raise unusable(error, repr(name)) from None

    def _path(self, name: str) -> str:
        below = decode_name(name).decode("utf-8", "surrogateescape") if name else ""
        return f"{self._base}/{below}" if below else self._base


def _stat(info: pafs.FileInfo) -> tuple[int, int]:
    if info.type != pafs.FileType.File:
        return UNKNOWN
    return info.size, info.mtime_ns if info.mtime_ns is not None else 0
