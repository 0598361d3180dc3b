"""A lack of memory or descriptors says nothing about an image: it never becomes a skip or a wrong listing."""

import errno
import io
import os
import resource
import socket
import tarfile
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import InvalidRequest, RefusedImage, Unavailable
from serve_app.records import SourceFile
from serve_app.sources import cloud, web
from serve_app.sources.cloud import Bucket
from serve_app.sources.files import stat_files
from serve_app.sources.reading import Reader
from serve_app.sources.remote import reason_of
from serve_app.sources.web import Web
from serve_app.urls import parse

MAX_BYTES = 1 << 20


@contextmanager
def without_descriptors():
    """Continue with every descriptor that this process may have in use."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path.resolve()
    (folder / "a.jpg").write_bytes(b"picture")
    return folder


@pytest.fixture
def table(root):
    """A Parquet file with two images."""
    images = pa.array([{"bytes": b"one", "path": "1.jpg"}, {"bytes": b"two", "path": "2.jpg"}])
    pq.write_table(pa.table({"image": images}), root / "t.parquet")
    return [file for page in sources.scan(root, "parquet", None) for file in page]


@pytest.fixture
def tar(root):
    """A tar with one image."""
    with tarfile.open(root / "t.tar", "w") as opened:
        info = tarfile.TarInfo("a.jpg")
        info.size = 3
        opened.addfile(info, io.BytesIO(b"one"))
    return [file for page in sources.scan(root, "webdataset", None) for file in page]


@pytest.fixture
def broken_bucket(monkeypatch):
    """A bucket whose file system fails with the error that is put into the returned list."""
    errors = []

    class Failing:
        def get_file_info(self, wanted):
            raise errors[0]

        open_input_file = get_file_info

    monkeypatch.setitem(cloud.FILE_SYSTEMS, "s3", lambda bucket: Failing())
    cloud._file_system.cache_clear()
    yield errors
    cloud._file_system.cache_clear()


def read(root, file):
    return Reader(Settings(dataset_roots=(root,))).read(str(root), file, max_bytes=MAX_BYTES)


SHORTAGES = [
    pytest.param(pa.ArrowMemoryError("malloc of size 64 failed"), MemoryError, id="Arrow has no memory"),
    pytest.param(MemoryError(), MemoryError, id="Python has no memory"),
    pytest.param(OSError(errno.EMFILE, "Too many open files"), Unavailable, id="no descriptor"),
    pytest.param(OSError(errno.ENFILE, "File table overflow"), Unavailable, id="no descriptor in the kernel"),
    pytest.param(OSError(errno.ENOMEM, "Cannot allocate memory"), Unavailable, id="the kernel has no memory"),
]


@pytest.mark.parametrize(("error", "raised"), SHORTAGES)
def test_a_bucket_that_cannot_be_asked_for_want_of_something_is_not_unreachable(broken_bucket, error, raised):
    broken_bucket.append(error)
    bucket = Bucket(parse("s3://bucket/set"))
    for ask in (
        lambda: bucket.read("a.jpg", max_bytes=MAX_BYTES),
        lambda: bucket.stat(["a.jpg"]),
        lambda: bucket.open("a.csv"),
        lambda: list(bucket.walk(frozenset({b".jpg"}))),
    ):
        with pytest.raises(raised) as caught:
            ask()
        assert not isinstance(caught.value, RefusedImage)


def test_a_bucket_whose_library_loses_the_error_number_is_not_unreachable(broken_bucket):
    broken_bucket.append(OSError("AWS Error NETWORK_CONNECTION: curlCode: 7, Couldn't connect to server"))
    bucket = Bucket(parse("s3://bucket/set"))
    with pytest.raises(RefusedImage, match="unreachable"):
        bucket.read("a.jpg", max_bytes=MAX_BYTES)
    with without_descriptors(), pytest.raises(Unavailable, match="too many open files"):
        bucket.read("a.jpg", max_bytes=MAX_BYTES)


@pytest.mark.parametrize(("error", "raised"), SHORTAGES)
def test_a_row_group_that_cannot_be_read_for_want_of_something_is_not_corrupt(root, table, monkeypatch, error, raised):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", fail)
    with pytest.raises(raised) as caught:
        read(root, table[0])
    assert not isinstance(caught.value, RefusedImage)
    monkeypatch.undo()
    assert read(root, table[0])[0] == b"one"


def test_a_row_group_on_a_failing_disk_has_the_reason_of_a_file_there(root, table, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", fail)
    with pytest.raises(RefusedImage, match=r"^io_error: "):
        read(root, table[0])


@pytest.mark.parametrize(("code", "raised"), [(errno.EIO, RefusedImage), (errno.ENOMEM, Unavailable)])
def test_a_tar_on_a_failing_disk_has_the_reason_of_a_file_there(root, tar, monkeypatch, code, raised):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(raised, match=r"^(io_error: |files cannot be opened now)"):
        read(root, tar[0])


def test_a_tar_that_was_cut_off_behind_its_header_has_changed(root, tar):
    os.truncate(root / "t.tar", 513)
    with pytest.raises(RefusedImage, match=r"^changed: "):
        read(root, tar[0])


@pytest.mark.parametrize("kind", ["file", "tar", "row"])
def test_no_kind_of_image_is_skipped_when_too_many_files_are_open(root, table, tar, kind):
    image = {"file": SourceFile("a.jpg", "a.jpg"), "tar": tar[0], "row": table[0]}[kind]
    with without_descriptors(), pytest.raises(Unavailable, match="too many open files"):
        read(root, image)


def test_no_file_is_listed_as_gone_for_want_of_memory(root, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, "stat", fail)
    with pytest.raises(Unavailable, match="cannot allocate memory"):
        stat_files(str(root), ["a.jpg"])


def test_no_page_of_the_web_is_unreachable_when_too_many_files_are_open():
    pages = Web(("http://127.0.0.1",), allow_private=True)
    url = parse("http://127.0.0.1/a.jpg")
    for ask in (lambda: pages.read(url, max_bytes=9), lambda: pages.stat(url), lambda: pages.open(url)):
        with without_descriptors(), pytest.raises(Unavailable, match="too many open files"):
            ask()


def test_a_name_that_cannot_be_looked_up_for_want_of_memory_is_not_unreachable(monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure")

    monkeypatch.setattr(web.socket, "getaddrinfo", fail)
    with pytest.raises(MemoryError):
        Web(("http://",), allow_private=True).read(parse("http://example.org/a.jpg"), max_bytes=9)


def test_a_bucket_that_does_not_exist_is_refused_where_its_file_system_is_made(monkeypatch):
    def make(bucket):
        raise OSError(f"Bucket '{bucket}' not found")

    monkeypatch.setitem(cloud.FILE_SYSTEMS, "s3", make)
    cloud._file_system.cache_clear()
    bucket = Bucket(parse("s3://no-such-bucket"))
    with pytest.raises(InvalidRequest, match=r"'m\.csv' cannot be read: it is not there"):
        bucket.open("m.csv")
    with pytest.raises(RefusedImage, match="not_found"):
        bucket.read("a.jpg", max_bytes=9)
    with pytest.raises(InvalidRequest, match="it is not there"):
        list(bucket.walk(frozenset()))


class Answered(OSError):
    """As the hub's errors, which carry the answer."""

    def __init__(self, status):
        super().__init__(f"{status} Client Error")
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("a.jpg"), "not_found"),
        (PermissionError(errno.EACCES, "no"), "permission_denied"),
        (OSError("When reading 'a' in bucket 'b': AWS Error ACCESS_DENIED during HeadObject"), "permission_denied"),
        (OSError("When reading 'FORBIDDEN/not_found.jpg': AWS Error SLOW_DOWN during GetObject"), "unreachable"),
        (OSError("key 'it's NO_SUCH_KEY' : AWS Error NETWORK_CONNECTION: Couldn't connect"), "unreachable"),
        (Answered(404), "not_found"),
        (Answered(403), "permission_denied"),
        (Answered(503), "unreachable"),
    ],
    ids=str,
)
def test_the_reason_comes_from_the_error_and_not_from_a_file_name_in_it(error, reason):
    assert reason_of(error) == reason
