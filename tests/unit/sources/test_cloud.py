"""Buckets: S3 on a real server, and how the other clouds are reached."""

import io
import tarfile

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from serve_app import sources
from serve_app.api import registration
from serve_app.config import Settings
from serve_app.errors import InvalidRequest, OutsideRoots, RefusedImage
from serve_app.sources import cloud
from serve_app.sources.files import read_file
from serve_app.sources.reading import Reader
from serve_app.urls import parse
from tests import s3_server

MAX_BYTES = 1 << 20


@pytest.fixture(scope="module")
def s3():
    with s3_server.running() as url:
        yield url


@pytest.fixture
def bucket(s3, monkeypatch, request):
    """An empty bucket's name, in an environment that leads to it."""
    for name, value in s3_server.environment(s3).items():
        monkeypatch.setenv(name, value)
    cloud._file_system.cache_clear()
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    s3_server.fill(s3, name, {})
    yield name
    cloud._file_system.cache_clear()


def listed(root, format="folder", annotations=None):
    return [file for page in sources.scan(parse(root), format, annotations) for file in page]


def reader(*roots):
    return Reader(Settings(dataset_roots=roots))


def read(root, file, *, max_bytes=MAX_BYTES):
    return reader(root).read(root, file, max_bytes=max_bytes)


def refusal(call):
    with pytest.raises(RefusedImage) as caught:
        call()
    return caught.value.reason


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet_of(table):
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, row_group_size=2)
    return buffer.getvalue()


def test_a_prefix_lists_its_images_as_a_folder_does(s3, bucket):
    names = ["z.jpg", "cat/1.png", "cat/é f#?.jpg", ".hidden.jpg", "cat/notes.txt"]
    s3_server.fill(s3, bucket, {f"set/{name}": b"picture" for name in names} | {"set-2/no.jpg": b"x"})
    root = f"s3://{bucket}/set"
    assert sources.detect(parse(root), None) == ("folder", None)
    files = listed(root)
    assert [(file.file_name, file.label, file.size_bytes) for file in files] == [
        ("cat/1.png", "cat", 7),
        ("cat/é f#?.jpg", "cat", 7),
        ("z.jpg", None, 7),
    ]
    assert [read(root, file)[0] for file in files] == [b"picture"] * 3
    assert reader(root).examine(root, files) == [(file.size_bytes, file.mtime_ns) for file in files]


def test_bytes_in_a_bucket_and_in_a_folder_have_one_hash(s3, bucket, tmp_path):
    s3_server.fill(s3, bucket, {"a.jpg": b"the same"})
    (tmp_path / "a.jpg").write_bytes(b"the same")
    [file] = listed(f"s3://{bucket}")
    stamp = read(f"s3://{bucket}", file)[1]
    here = read_file(str(tmp_path), "a.jpg", max_bytes=MAX_BYTES)[1]
    assert (stamp.content_hash, stamp.size_bytes) == (here.content_hash, here.size_bytes)
    assert (stamp.size_bytes, stamp.mtime_ns) == (file.size_bytes, file.mtime_ns)


def test_tars_and_parquet_files_in_a_bucket_are_read_from_their_places(s3, bucket):
    tar = tar_of([("1.jpg", b"one"), ("1.cls", b"7"), ("2.jpg", b"two" * 1000)])
    struct = [{"bytes": b"a", "path": None}, {"bytes": b"bb", "path": None}, {"bytes": b"ccc", "path": None}]
    table = parquet_of({"image": struct, "label": ["x", "y", "z"]})
    s3_server.fill(s3, bucket, {"t/s.tar": tar, "p/data/a.parquet": table})
    for root, format, ids, labels, contents in (
        (f"s3://{bucket}/t", "webdataset", ["s.tar/1.jpg", "s.tar/2.jpg"], ["7", None], [b"one", b"two" * 1000]),
        (
            f"s3://{bucket}/p",
            "parquet",
            [f"data/a.parquet/{i}" for i in range(3)],
            ["x", "y", "z"],
            [b"a", b"bb", b"ccc"],
        ),
    ):
        assert sources.detect(parse(root), None) == (format, None)
        files = listed(root, format)
        assert [file.sample_id for file in files] == ids
        assert [file.label for file in files] == labels
        assert [read(root, file)[0] for file in files] == contents
    s3_server.fill(s3, bucket, {"t/s.tar": tar_of([("0.jpg", b"0" * 600), ("1.jpg", b"one")])})
    [one, _] = [file for file in files_before(tar, bucket)]
    assert refusal(lambda: read(f"s3://{bucket}/t", one)) == "changed"


def files_before(tar, bucket):
    """What a listing of the tar said before another took its place."""
    from serve_app.records import SourceFile
    from serve_app.sources import webdataset

    for member in webdataset.members(io.BytesIO(tar), "s.tar"):
        place = f"tar {member.offset} {member.size_bytes} s.tar"
        yield SourceFile(member.name, member.name, None, member.size_bytes, 1, place)


def test_a_manifest_in_a_bucket_names_objects_of_this_and_other_buckets(s3, bucket):
    s3_server.fill(s3, f"{bucket}x", {"far.jpg": b"far"})
    lines = f"file_name,label\nnear.jpg,cat\ngone.jpg,\ns3://{bucket}x/far.jpg,dog\n"
    s3_server.fill(s3, bucket, {"m.csv": lines.encode(), "near.jpg": b"near", "manifest.csv": lines.encode()})
    roots = (f"s3://{bucket}", f"s3://{bucket}x")
    root, manifest = parse(roots[0]), parse(f"{roots[0]}/m.csv")
    from serve_app.sources.web import Web

    web = Web(roots, allow_private=False)
    assert sources.detect(root, None, web=web) == ("manifest", root.child("manifest.csv"))
    [[near, gone, far]] = list(sources.scan(root, "manifest", manifest, web=web))
    assert [file.size_bytes for file in (near, gone, far)] == [4, -1, 3]
    everywhere = reader(*roots)
    assert [everywhere.read(roots[0], file, max_bytes=9)[0] for file in (near, far)] == [b"near", b"far"]
    assert refusal(lambda: everywhere.read(roots[0], gone, max_bytes=9)) == "not_found"
    assert refusal(lambda: reader(roots[0]).read(roots[0], far, max_bytes=9)) == "permission_denied"
    with pytest.raises(InvalidRequest, match="line 4"):
        list(sources.scan(root, "manifest", manifest, web=Web(roots[:1], allow_private=False)))


def test_an_object_that_cannot_be_used_is_a_skip_with_a_reason(s3, bucket):
    s3_server.fill(s3, bucket, {"big.jpg": b"x" * 100, "empty.jpg": b"", "gone.jpg": b"x"})
    root = f"s3://{bucket}"
    big, empty, gone = listed(root)
    assert refusal(lambda: read(root, big, max_bytes=99)) == "too_large"
    assert refusal(lambda: read(root, empty)) == "empty"
    s3_server.fill(s3, bucket, {}).delete_file(f"{bucket}/gone.jpg")
    assert refusal(lambda: read(root, gone)) == "not_found"
    assert reader(root).is_any_there(root, [gone, big])
    assert not reader(root).is_any_there(root, [gone])


def test_a_bucket_that_is_not_there_or_does_not_answer_says_so(bucket, monkeypatch):
    with pytest.raises(InvalidRequest, match="cannot be read: it is not there"):
        listed("s3://no-such-bucket")
    with pytest.raises(InvalidRequest, match="cannot be read: it is not there"):
        listed(f"s3://{bucket}", "manifest", parse(f"s3://{bucket}/none.csv"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    cloud._file_system.cache_clear()
    with pytest.raises(InvalidRequest, match="does not answer") as caught:
        listed(f"s3://{bucket}")
    assert "127.0.0.1" not in caught.value.detail
    file = sources.SourceFile("a.jpg", "a.jpg", None, 1, 1)
    assert refusal(lambda: read(f"s3://{bucket}", file)) == "unreachable"
    assert not reader("s3://").is_any_there(f"s3://{bucket}", [file])


async def test_a_url_below_no_root_is_never_asked_for(monkeypatch):
    monkeypatch.setattr(cloud, "FILE_SYSTEMS", {})
    for root in ("s3://bucket/other", "s3://bucket", "gs://bucket/mine"):
        with pytest.raises(OutsideRoots):
            await registration.register(
                None,
                Settings(dataset_roots=("s3://bucket/mine",)),
                name="n",
                root=root,
                format="auto",
                annotations=None,
            )


def test_a_file_that_breaks_off_while_it_is_listed_says_so(s3, bucket, monkeypatch):
    s3_server.fill(s3, bucket, {"a.tar": tar_of([("1.jpg", bytes(5_000_000)), ("2.jpg", b"two")])})

    class Failing:
        def __init__(self, file):
            self.size, self.close, self.seek, self.read = file.size, file.close, file.seek, self.first

        def first(self, n_bytes):
            self.read = self.second
            return bytes(n_bytes) if n_bytes < 3 else tar_of([("1.jpg", bytes(5_000_000))])[:n_bytes]

        def second(self, n_bytes):
            raise OSError("AWS Error SLOW_DOWN at 10.0.0.1")

    real = cloud.reading
    monkeypatch.setattr(cloud, "reading", lambda open_source: real(lambda: Failing(open_source())))
    with pytest.raises(InvalidRequest, match="does not answer") as caught:
        listed(f"s3://{bucket}", "webdataset")
    assert "10.0.0.1" not in caught.value.detail


def test_a_pyarrow_without_a_cloud_says_how_to_get_one(monkeypatch):
    def missing(bucket):
        raise ImportError("not built with support for 'GcsFileSystem'")

    monkeypatch.setitem(cloud.FILE_SYSTEMS, "gs", missing)
    with pytest.raises(InvalidRequest, match="pip install"):
        listed("gs://bucket-of-nobody")


# The other clouds: what their file systems are made with


class Made(Exception):
    """Carries what a file system was asked to be."""


def asked(scheme, monkeypatch, name, **environment):
    for variable in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    def make(*args, **options):
        raise Made(args, options)

    monkeypatch.setattr(pafs, name, make)
    monkeypatch.setattr(pafs, "resolve_s3_region", lambda bucket: f"region-of-{bucket}")
    with pytest.raises(Made) as caught:
        cloud.FILE_SYSTEMS[scheme]("place")
    return caught.value.args


def test_s3_goes_where_the_environment_says(monkeypatch):
    _, found = asked("s3", monkeypatch, "S3FileSystem")
    assert (found["region"], found["endpoint_override"], found["anonymous"]) == ("region-of-place", None, False)
    _, found = asked("s3", monkeypatch, "S3FileSystem", AWS_REGION="eu-north-1", AWS_NO_SIGN_REQUEST="YES")
    assert (found["region"], found["anonymous"]) == ("eu-north-1", True)
    _, found = asked("s3", monkeypatch, "S3FileSystem", AWS_ENDPOINT_URL="http://minio:9000")
    assert found["endpoint_override"] == "http://minio:9000"


def test_google_cloud_does_not_try_for_a_quarter_of_an_hour(monkeypatch):
    _, found = asked("gs", monkeypatch, "GcsFileSystem")
    assert found["retry_time_limit"].total_seconds() == 30


def test_azure_takes_its_account_and_key_from_the_environment(monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT", raising=False)
    with pytest.raises(InvalidRequest, match="AZURE_STORAGE_ACCOUNT"):
        cloud.FILE_SYSTEMS["az"]("container")
    found = asked("az", monkeypatch, "AzureFileSystem", AZURE_STORAGE_ACCOUNT="me", AZURE_STORAGE_KEY="a2V5")
    assert found == (("me",), {"account_key": "a2V5"})
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    found = asked("az", monkeypatch, "AzureFileSystem", AZURE_STORAGE_ACCOUNT="me", AZURE_STORAGE_SAS_TOKEN="sas")
    assert found == (("me",), {"sas_token": "sas"})


class Hub(fsspec.get_filesystem_class("memory")):
    """Files in memory that, like the hub's, have a blob id and no time of change."""

    store, pseudo_dirs = {}, [""]
    cachable = False

    def __init__(self, **options):
        super().__init__()

    def _blob(self, info):
        kept = {"name": info["name"].strip("/"), "size": info["size"], "type": info["type"]}
        return kept | ({"blob_id": f"sha of {self.cat_file(info['name'])}"} if info["type"] == "file" else {})

    def info(self, path, **options):
        return self._blob(super().info(path, **options))

    def find(self, path, **options):
        return {name.strip("/"): self._blob(info) for name, info in super().find(path, **options).items()}

    def ls(self, path, detail=True, **options):
        found = [self._blob(info) for info in super().ls(path, detail=True, **options)]
        return found if detail else [info["name"] for info in found]


def test_the_hub_is_read_through_its_own_file_system(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfFileSystem", Hub)
    cloud._file_system.cache_clear()
    hub = Hub()
    hub.pipe("/datasets/org/name/cat/a.jpg", b"one")
    hub.pipe("/datasets/org/name/b.jpg", b"two")
    root = "hf://datasets/org/name"
    before = listed(root)
    assert [(file.file_name, file.label, file.size_bytes) for file in before] == [
        ("b.jpg", None, 3),
        ("cat/a.jpg", "cat", 3),
    ]
    assert [read(root, file)[0] for file in before] == [b"two", b"one"]
    hub.pipe("/datasets/org/name/b.jpg", b"TWO")
    after = listed(root)
    assert [old.mtime_ns == new.mtime_ns for old, new in zip(before, after, strict=True)] == [False, True]
    assert refusal(lambda: read(root, sources.SourceFile("x", "x.jpg", None, 1, 1))) == "not_found"
    cloud._file_system.cache_clear()
