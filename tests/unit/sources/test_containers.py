"""Datasets whose images lie in tars and Parquet files: listing, reading, and what is wrong with them."""

import io
import json
import os
import tarfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources import image_table, webdataset
from serve_app.sources.files import read_file
from serve_app.sources.reading import Reader

MAX_BYTES = 1 << 20


@pytest.fixture
def root(tmp_path):
    return tmp_path.resolve()


@pytest.fixture
def reader(root):
    return Reader(Settings(dataset_roots=(root,)))


def write_tar(path, members, **options):
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_images(path, images, *, row_group_size=2, features=None, **columns):
    """A Parquet file as `datasets` writes it."""
    struct = pa.array([{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)])
    table = pa.table({"image": struct, **columns})
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def listed(root, format, annotations=None):
    return [file for page in sources.scan(root, format, annotations) for file in page]


def contents(reader, root, files):
    return [reader.read(str(root), file, max_bytes=MAX_BYTES)[0] for file in files]


def problem(root, format, annotations=None):
    with pytest.raises(InvalidRequest) as caught:
        listed(root, format, annotations)
    assert str(root) not in caught.value.detail
    return caught.value.detail


# Tars


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_lists_its_images_with_the_labels_beside_them(root, reader, format):
    long = "x" * 90 + "/" + "y" * 80
    members = [
        ("0001.jpg", b"first"),
        ("0001.cls", b"3\n"),
        ("0002.txt", b" a cat "),
        ("0002.jpg", b"second!"),
        ("0003.png", b"third"),
        ("0003.json", b'{"label": "dog", "width": 4}'),
        ("./sub/0004.seg.png", b"mask"),
        ("./sub/0004.jpg", b"photo"),
        (f"{long}.webp", b"long name"),
        ("notes.md", b"# not an image"),
        (".hidden.jpg", b"no"),
    ]
    write_tar(root / "train-00.tar", members, format=format)
    files = listed(root, "webdataset")
    assert [(file.sample_id, file.label, file.size_bytes) for file in files] == [
        ("train-00.tar/0001.jpg", "3", 5),
        ("train-00.tar/0002.jpg", "a cat", 7),
        ("train-00.tar/0003.png", "dog", 5),
        ("train-00.tar/sub/0004.seg.png", None, 4),
        ("train-00.tar/sub/0004.jpg", None, 5),
        (f"train-00.tar/{long}.webp", None, 9),
    ]
    assert contents(reader, root, files) == [b"first", b"second!", b"third", b"mask", b"photo", b"long name"]
    time = (root / "train-00.tar").stat().st_mtime_ns
    assert all(0 <= file.mtime_ns - time < 2**32 for file in files)
    assert len({file.mtime_ns for file in files}) == len(files)  # each is moved by its own header's mark


def test_several_tars_are_one_dataset_and_one_alone_may_be_named(root):
    for shard in (1, 0):
        write_tar(root / f"s{shard}.tar", [("a.jpg", b"x")])
    assert [file.sample_id for file in listed(root, "webdataset")] == ["s0.tar/a.jpg", "s1.tar/a.jpg"]
    assert [file.sample_id for file in listed(root, "webdataset", root / "s1.tar")] == ["s1.tar/a.jpg"]


def test_ids_and_places_are_found_again_after_the_tar_was_written_anew(root, reader):
    write_tar(root / "a.tar", [("1.jpg", b"one"), ("2.jpg", b"two")])
    before = listed(root, "webdataset")
    write_tar(root / "a.tar", [("0.jpg", b"0" * 600), ("1.jpg", b"one"), ("2.jpg", b"two")])
    with pytest.raises(RefusedImage) as caught:
        reader.read(str(root), before[1], max_bytes=MAX_BYTES)
    assert (caught.value.reason, "rescan" in caught.value.detail) == ("changed", True)
    after = listed(root, "webdataset")
    assert [file.sample_id for file in after[1:]] == [file.sample_id for file in before]
    assert contents(reader, root, after)[1:] == [b"one", b"two"]


class Counted(io.FileIO):
    """A file that counts what is read from it."""

    n_bytes = 0

    def readinto(self, buffer):
        n_bytes = super().readinto(buffer)
        self.n_bytes += n_bytes
        return n_bytes

    def read(self, n_bytes=-1):
        data = super().read(n_bytes)
        self.n_bytes += len(data)
        return data


def test_listing_a_tar_reads_headers_only_and_keeps_none(root):
    path = root / "big.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(3000):
            info = tarfile.TarInfo(f"{i:06}.jpg")
            info.size = 20_000
            tar.addfile(info, io.BytesIO(bytes(20_000)))

    file = Counted(path)
    tracemalloc.start()
    n_images = sum(1 for _ in webdataset.members(io.BufferedReader(file, 512), path.name))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_images == 3000
    assert file.n_bytes < path.stat().st_size / 10
    assert peak_bytes < 500_000


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "cannot be read as a tar"),
        (b"no tar" * 500, "cannot be read as a tar"),
        (b"\x1f\x8b" + bytes(600), "is compressed"),
    ],
    ids=["empty", "something else", "gzip"],
)
def test_what_is_no_plain_tar_is_refused(root, data, detail):
    (root / "a.tar").write_bytes(data)
    assert detail in problem(root, "webdataset")


def test_a_tar_that_breaks_off_is_refused(root):
    path = write_tar(root / "a.tar", [("1.jpg", b"x" * 5000), ("2.jpg", b"y" * 5000)])
    path.write_bytes(path.read_bytes()[:7000])
    assert "cannot be read as a tar" in problem(root, "webdataset")


def test_a_header_cannot_have_gigabytes_read(root):
    info = tarfile.TarInfo("a.jpg")
    info.type, info.size = tarfile.XHDTYPE, 7 << 30
    with open(root / "a.tar", "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(8 << 30)
    tracemalloc.start()
    detail = problem(root, "webdataset")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than 1,048,576 bytes" in detail
    assert peak_bytes < 10_000_000


def test_a_member_is_read_beneath_the_root_only(root, reader):
    inside = root / "data"
    inside.mkdir()
    write_tar(inside / "a.tar", [("1.jpg", b"x")])
    [file] = listed(inside, "webdataset")
    (inside / "a.tar").rename(root / "a.tar")
    (inside / "a.tar").symlink_to(root / "a.tar")
    with pytest.raises(RefusedImage, match="symlink"):
        reader.read(str(inside), file, max_bytes=MAX_BYTES)


def test_bytes_in_a_tar_and_in_a_folder_have_one_hash(root, reader):
    write_tar(root / "a.tar", [("1.jpg", b"the same")])
    (root / "1.jpg").write_bytes(b"the same")
    [file] = listed(root, "webdataset")
    in_tar = reader.read(str(root), file, max_bytes=MAX_BYTES)[1]
    in_folder = read_file(str(root), "1.jpg", max_bytes=MAX_BYTES)[1]
    assert (in_tar.content_hash, in_tar.size_bytes) == (in_folder.content_hash, in_folder.size_bytes)


# Parquet


def test_rows_are_listed_with_the_names_of_their_classes(root, reader):
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    }
    path = write_images(root / "data/train.parquet", [b"a", b"bb", b"ccc"], features=features, label=[1, 0, None])
    files = listed(root, "parquet")
    assert [(file.sample_id, file.label) for file in files] == [
        ("data/train.parquet/0", "dog"),
        ("data/train.parquet/1", "cat"),
        ("data/train.parquet/2", None),
    ]
    assert contents(reader, root, files) == [b"a", b"bb", b"ccc"]
    assert all(0 <= file.mtime_ns - path.stat().st_mtime_ns < 2**32 for file in files)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_binary_column_holds_images_too(root, reader, kind):
    pq.write_table(pa.table({"jpg": pa.array([b"a", b"b"], kind), "class": ["x", "y"]}), root / "a.parquet")
    files = listed(root, "parquet")
    assert [file.label for file in files] == ["x", "y"]
    assert contents(reader, root, files) == [b"a", b"b"]


def test_listing_reads_no_image(root):
    write_images(root / "a.parquet", [os.urandom(100_000) for _ in range(50)], row_group_size=10, label=["x"] * 50)

    file = Counted(root / "a.parquet")
    assert len(list(image_table.rows(file, "a.parquet"))) == 50
    assert file.n_bytes < 500_000


def test_a_row_group_is_read_once_for_all_who_want_its_rows(root):
    write_images(root / "a.parquet", [b"%d" % i for i in range(40)], row_group_size=20)
    n_opened = 0

    def open_file():
        nonlocal n_opened
        n_opened += 1
        return open(root / "a.parquet", "rb")

    groups = image_table.RowGroups()
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda i: groups.image("key", open_file, i // 20, i % 20), range(40)))
    assert read == [b"%d" % i for i in range(40)]
    assert n_opened == 2


def test_a_failed_read_is_tried_again(root):
    path = write_images(root / "a.parquet", [b"x"])
    groups = image_table.RowGroups()

    def gone():
        raise RefusedImage("unreachable: try again")

    with pytest.raises(RefusedImage, match="unreachable"):
        groups.image("key", gone, 0, 0)
    assert groups.image("key", lambda: open(path, "rb"), 0, 0) == b"x"  # noqa: SIM115


def test_rows_without_a_usable_image_are_skipped_with_a_reason(root, reader, monkeypatch):
    write_images(root / "a.parquet", [b"x" * 10, None, b"", b"y"], row_group_size=4)
    big, none, empty, good = listed(root, "parquet")
    for file, reason in ((big, "too_large"), (none, "empty"), (empty, "empty")):
        with pytest.raises(RefusedImage) as caught:
            reader.read(str(root), file, max_bytes=5)
        assert caught.value.reason == reason
    assert reader.read(str(root), good, max_bytes=5)[0] == b"y"
    monkeypatch.setattr(image_table, "MAX_GROUP_BYTES", 10)
    with pytest.raises(RefusedImage, match="smaller row groups"):
        Reader(Settings(dataset_roots=(root,))).read(str(root), good, max_bytes=5)


def test_a_file_that_became_shorter_or_broken_is_a_skip(root, reader):
    write_images(root / "a.parquet", [b"x", b"y", b"z"], row_group_size=2)
    files = listed(root, "parquet")
    write_images(root / "a.parquet", [b"x"])
    for file in files[1:]:
        with pytest.raises(RefusedImage, match="rescan"):
            reader.read(str(root), file, max_bytes=MAX_BYTES)
    (root / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(RefusedImage) as caught:
        Reader(Settings(dataset_roots=(root,))).read(str(root), files[0], max_bytes=MAX_BYTES)
    assert caught.value.reason == "corrupt"


def test_what_is_no_parquet_or_has_no_images_is_refused(root):
    (root / "a.parquet").write_bytes(b"PAR1nothing")
    assert "cannot be read as Parquet" in problem(root, "parquet")
    pq.write_table(pa.table({"label": ["x"]}), root / "a.parquet")
    assert "no column of images" in problem(root, "parquet")
    pq.write_table(pa.table({"image": [b"x"], "label": [["list"]]}), root / "a.parquet")
    assert [file.label for file in listed(root, "parquet")] == [None]


# Finding out


def test_auto_finds_tars_and_parquet_where_no_images_lie(root):
    assert sources.detect(root, None) == ("folder", None)
    write_images(root / "data/a.parquet", [b"x"])
    assert sources.detect(root, None) == ("parquet", None)
    write_tar(root / "a.tar", [("1.jpg", b"x")])
    assert sources.detect(root, None) == ("webdataset", None)
    (root / "b.jpg").write_bytes(b"x")
    assert sources.detect(root, None) == ("folder", None)
    assert sources.detect(root, root / "a.tar") == ("webdataset", root / "a.tar")
    assert sources.detect(root, root / "data/a.parquet") == ("parquet", root / "data/a.parquet")


def test_a_parquet_manifest_is_still_one(root):
    pq.write_table(pa.table({"file_name": ["a.jpg"]}), root / "a.parquet")
    assert sources.detect(root, root / "a.parquet") == ("manifest", root / "a.parquet")
    assert sources.detect(root, None) == ("folder", None)
