"""What other people's tools write and download: found, or refused or left out with a word about it."""

import base64
import io
import json
import os
import tarfile
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app import sources
from serve_app.config import Settings
from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources import manifest
from serve_app.sources.reading import Reader

CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


@pytest.fixture
def root(tmp_path):
    return tmp_path.resolve()


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"12345")


def write_coco(path, *names, text=None):
    images = [{"id": i, "file_name": name} for i, name in enumerate(names, 1)]
    boxes = [{"image_id": i, "category_id": i % 2 + 1, "bbox": [0, 0, 4, 4]} for i in range(len(names))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or json.dumps({"images": images, "annotations": boxes[1:], "categories": CATEGORIES}))
    return path


def register(root, wanted="auto", annotations=None):
    """The format, the listed files and the notices, as a registration finds them."""
    notices = []
    format, file = sources.detect(root, annotations, wanted, notices=notices)
    listed = [image for page in sources.scan(root, format, file, notices=notices) for image in page]
    return format, listed, " | ".join(notices)


def there(listed):
    return {file.file_name: file.size_bytes >= 0 for file in listed}


def images(path, *images, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = pa.array([{"bytes": data, "path": None} for data in images])
    pq.write_table(pa.table({"image": structs, **columns}), path)


@pytest.mark.parametrize("text", ["pics\\x.png", ".\\pics\\x.png", "..\\pics\\x.png", "pics/%78.png", "../pics/x.png"])
def test_names_of_other_systems_are_found(root, text):
    touch(root, "pics/x.png")
    _, listed, notices = register(root, "coco", write_coco(root / "labels/c.json", text))
    assert (there(listed), notices) == ({"pics/x.png": True}, "")
    (root / "labels/m.csv").write_text(f"file_name,label\n{text},cat\n")
    _, listed, _ = register(root, "manifest", root / "labels/m.csv")
    assert [(file.sample_id, file.label, file.size_bytes) for file in listed] == [("pics/x.png", "cat", 5)]


def test_a_literal_name_counts_before_other_spellings(root):
    touch(root, "pics\\x.png", "pics/x.png")
    assert there(register(root, "coco", write_coco(root / "c.json", "pics\\x.png"))[1]) == {"pics\\x.png": True}


@pytest.mark.parametrize(("on_disk", "in_file"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_are_found_however_they_are_composed(root, on_disk, in_file):
    touch(root, unicodedata.normalize(on_disk, "Ångström.png"))
    name = unicodedata.normalize(in_file, "Ångström.png")
    assert list(there(register(root, "coco", write_coco(root / "c.json", name))[1]).values()) == [True]


def test_absolute_names_below_the_root_are_found_and_others_refused(root):
    touch(root, "p/x.png")
    assert there(register(root, "coco", write_coco(root / "c.json", f"{root}/p/x.png"))[1]) == {"p/x.png": True}
    for text in (f"{root}x/x.png", f"{root}/../x.png", "../x.png"):
        with pytest.raises(InvalidRequest, match="leads outside"):
            register(root, "coco", write_coco(root / "c.json", text))


def test_images_are_found_though_the_first_thousands_are_absent(root):
    names = [f"{i}.png" for i in range(2100)]
    touch(root, "val/2050.png", "val/2099.png")
    _, listed, notices = register(root, "coco", write_coco(root / "annotations/instances_val.json", *names))
    assert sum(there(listed).values()) == 2
    assert "2,098 of the 2,100 named files are not there" in notices


def test_a_stray_file_in_the_root_does_not_decide_where_the_others_are(root):
    touch(root, "0.png", "images/0.png", "images/1.png", "images/2.png")
    listed = register(root, "coco", write_coco(root / "c.json", "0.png", "1.png", "2.png"))[1]
    assert there(listed) == {"images/0.png": True, "images/1.png": True, "images/2.png": True}


def test_the_layout_of_fiftyone_is_found_by_itself(root):
    touch(root, "data/x.png", "data/y.png")
    write_coco(root / "labels.json", "x.png", "y.png")
    format, listed, _ = register(root)
    assert (format, there(listed)) == ("coco", {"data/x.png": True, "data/y.png": True})


def test_splits_with_a_coco_file_each_are_refused_with_their_names(root):
    for split in ("train", "valid"):
        touch(root, f"{split}/x.png")
        write_coco(root / split / "_annotations.coco.json", "x.png")
    with pytest.raises(InvalidRequest, match=r"train/_annotations\.coco\.json, valid/_annotations\.coco\.json"):
        register(root)


@pytest.mark.parametrize("word", ["NaN", "-Infinity", "Infinity", "123456789012345678901234567890"])
def test_numbers_that_are_no_json_and_long_ones_do_not_cost_the_labels(root, word):
    touch(root, "NaN.png")
    text = (
        f'{{"info": {{"score": {word}, "name": "NaN \\" Infinity"}}, "images": [{{"id": 7, "file_name": "NaN.png"}}], '
        '"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 4]}], "categories": '
        f'[{{"id": 1, "name": "NaN"}}], "more": [{word}]}}'
    )
    write_coco(root / "annotations.json", text=text)
    format, [file], _ = register(root)
    assert (format, file.file_name, file.label) == ("coco", "NaN.png", "NaN")


def test_long_ids_keep_their_digits(root):
    text = '{"images": [{"id": 18446744073709551617, "file_name": "x.png"}], "annotations": []}'
    assert register(root, "coco", write_coco(root / "c.json", text=text))[1][0].sample_id == "18446744073709551617"


def test_a_category_may_be_called_zero(root):
    document = {
        "images": [{"id": 1, "file_name": "x.png"}],
        "annotations": [{"image_id": 1, "category_id": 5}],
        "categories": [{"id": 5, "name": 0}],
    }
    assert register(root, "coco", write_coco(root / "c.json", text=json.dumps(document)))[1][0].label == "0"


@pytest.mark.parametrize("section", ["images", "categories"])
def test_two_entries_of_one_id_are_refused_with_the_id(root, section):
    document = {
        "images": [{"id": 3, "file_name": "x.png"}, {"id": 4, "file_name": "y.png"}],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    document[section][1]["id"] = 3
    path = write_coco(root / "c.json", text=json.dumps(document))
    with pytest.raises(InvalidRequest, match=rf"{section}\[1\] of 'c.json': .* has the id '?3"):
        register(root, "coco", path)


def test_annotations_of_unlisted_images_are_told(root):
    document = {"images": [], "annotations": [{"image_id": 9, "category_id": 1}]}
    assert (
        "annotates 1 images that it does not list"
        in register(root, "coco", write_coco(root / "c.json", text=json.dumps(document)))[2]
    )


ROWS = "{0}{1}label\r\nx.png{1}cat\r\ny.png{1}dog\r\n"
MANIFESTS = {
    "manifest.csv": ROWS.format("file_name", ",").replace("\r\n", "\r").encode(),
    "metadata.csv": ROWS.format("file_name", "\t").encode("utf-16"),
    "manifest.tsv": b"sep=;\r\n" + ROWS.format("file_name", ";").encode(),
    "metadata.tsv": ROWS.format("File Path", ",").encode(),
    "metadata.jsonl": b'{"label": "cat", "file_name": "x.png"}\n\n{"file_name": "y.png", "label": "dog"}',
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_of_many_writers_have_their_labels_read(root, name):
    touch(root, "x.png", "y.png")
    (root / name).write_bytes(MANIFESTS[name])
    format, listed, notices = register(root)
    assert (format, [(f.file_name, f.label) for f in listed]) == ("manifest", [("x.png", "cat"), ("y.png", "dog")])
    assert notices == ""


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("manifest.csv", "file_name,été\nx.png,a\n".encode("latin-1"), "line 1 of 'manifest.csv' is not UTF-8"),
        ("metadata.csv", b"title,label\nx,cat\n", "'metadata.csv' has no column 'file_name' (columns found: title"),
        ("metadata.jsonl", b"{oops\n", "line 1 of 'metadata.jsonl' is not JSON"),
        ("annotations.json", b'{"images": [], }', "'annotations.json' is not valid UTF-8 JSON at byte"),
        ("labels.json", b"[]", "'labels.json' is not a COCO file"),
        ("manifest.parquet", b"PAR1", "'manifest.parquet' cannot be read as Parquet"),
    ],
)
def test_what_is_set_aside_is_named_with_the_reason(root, name, content, detail):
    touch(root, "x.png")
    (root / name).write_bytes(content)
    format, listed, notices = register(root)
    assert (format, len(listed)) == ("folder", 1)
    assert f"set aside: {detail}" in notices


def test_a_manifest_without_labels_is_told(root):
    (root / "m.csv").write_text("file_name,width\nx.png,3\n")
    assert "'m.csv' has no column 'label'" in register(root, "manifest", root / "m.csv")[2]


VIEWED = [pa.string_view(), pa.large_string(), pa.binary(), pa.dictionary(pa.int8(), pa.utf8())]


@pytest.mark.parametrize("kind", VIEWED)
def test_labels_of_every_kind_of_text_are_read(root, kind):
    images(root / "a.parquet", b"x", b"y", label=pa.array(["cat", "dog"]).cast(kind))
    assert [file.label for file in register(root)[1]] == ["cat", "dog"]


def test_a_label_column_that_cannot_be_read_is_told(root):
    images(root / "a.parquet", b"x", label=[["list"]])
    assert "the column 'label' of 'a.parquet' is of type list" in register(root)[2]


@pytest.mark.parametrize("magic", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFFxxxxWEBP"])
def test_images_as_base64_text_are_refused(root, magic):
    text = base64.b64encode(magic + bytes(60)).decode()
    pq.write_table(pa.table({"image": [text], "label": ["cat"]}), root / "a.parquet")
    (root / "a.csv").write_text(f"image,label\n{text},cat\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(InvalidRequest, match="an image as base64 text"):
            register(root, "auto", root / name)


def test_a_banner_beside_the_images_of_a_hub_repository_is_not_the_dataset(root):
    touch(root, "assets/banner.png")
    images(root / "data/train.parquet", b"x", b"y", b"z")
    with pytest.raises(InvalidRequest, match=r"'data/train\.parquet'; say in 'format'"):
        register(root)
    _, listed, notices = register(root, "parquet")
    assert len(listed) == 3
    assert "'assets/banner.png' are images beside" in notices


def test_a_table_of_metadata_before_that_of_the_images_is_left_out(root):
    pq.write_table(pa.table({"license": ["x"]}), root / "a.parquet")
    images(root / "data/train.parquet", b"x")
    format, listed, notices = register(root)
    assert (format, len(listed)) == ("parquet", 1)
    assert "'a.parquet' have no column of images" in notices


def test_lists_of_images_are_refused_as_such(root):
    pq.write_table(pa.table({"images": [[{"bytes": b"x", "path": None}]]}), root / "a.parquet")
    assert "the column 'images' of 'a.parquet' holds lists of images" in register(root)[2]
    with pytest.raises(InvalidRequest, match="holds lists of images"):
        register(root, "parquet")


def test_links_are_told(root):
    touch(root, "real/x.png", "blobs/1")
    images(root / "blobs/2", b"x")
    (root / "cache").mkdir()
    (root / "cache/a.parquet").symlink_to("../blobs/2")
    (root / "linked").mkdir()
    (root / "linked/cats").symlink_to("../real")
    assert "'a.parquet' cannot be opened: symbolic links are not followed" in register(root / "cache")[2]
    assert "'cats/' are symbolic links to folders" in register(root / "linked")[2]


def test_images_of_other_formats_are_told(root):
    touch(root, "IMG_1.DNG", "IMG_2.dng", "x.png")
    assert "'IMG_1.DNG', 'IMG_2.dng' are of a format of images that is not read" in register(root)[2]


# Containers that change, and hostile ones


def write_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_members_of_one_size_that_change_places_are_not_mixed_up(root):
    write_tar(root / "a.tar", ("ab.png", b"the cat"), ("ba.png", b"the dog"))
    listed = register(root)[1]
    reader = Reader(Settings(dataset_roots=(root,)))
    assert reader.read(str(root), listed[0], max_bytes=100)[0] == b"the cat"
    write_tar(root / "a.tar", ("ba.png", b"the dog"), ("ab.png", b"the cat"))
    with pytest.raises(RefusedImage, match="changed"):
        reader.read(str(root), listed[0], max_bytes=100)


def test_a_parquet_file_of_one_size_and_time_that_changed_is_noticed(root):
    images(root / "a.parquet", b"one", b"two")
    before = (root / "a.parquet").stat()
    listed = register(root)[1]
    images(root / "a.parquet", b"six", b"ten")
    os.utime(root / "a.parquet", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (root / "a.parquet").stat().st_size == before.st_size
    with pytest.raises(RefusedImage, match="changed"):
        Reader(Settings(dataset_roots=(root,))).read(str(root), listed[0], max_bytes=100)


@pytest.mark.parametrize("size", [-512, -1, 1 << 62, 1 << 70])
@pytest.mark.parametrize("name", ["a.png", "a.cls"])
def test_a_tar_with_an_impossible_size_is_refused(root, size, name):
    info = tarfile.TarInfo(name)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (size % (1 << 96)).to_bytes(12, "big") if size < 0 else b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (root / "a.tar").write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(InvalidRequest, match="cannot be read as a tar"):
        register(root)


def test_a_long_text_under_many_keys_is_refused_before_it_is_copied(root):
    names = pa.DictionaryArray.from_arrays(pa.nulls(100_000, pa.int32()).fill_null(0), ["x" * 1_000_000])
    pq.write_table(pa.table({"file_name": names}), root / "m.parquet", compression="zstd")
    assert (root / "m.parquet").stat().st_size < 10_000
    with pytest.raises(InvalidRequest, match="1,000,000 bytes in a cell"):
        register(root, "manifest", root / "m.parquet")


def test_dates_out_of_range_and_bytes_that_are_no_text_end_in_an_error_of_the_service(root):
    stamps = pa.array([1 << 62], pa.timestamp("us"))
    pq.write_table(pa.table({"file_name": ["a"], "label": stamps}), root / "m.parquet")
    register(root, "manifest", root / "m.parquet")
    pq.write_table(pa.table({"file_name": ["a"], "label": [b"\xff"]}), root / "m.parquet")
    with pytest.raises(InvalidRequest):
        register(root, "manifest", root / "m.parquet")
    with pytest.raises(InvalidRequest):
        list(manifest.images(io.BytesIO(b'{"file_name": "a", "label": "\\ud800"}'), "m.jsonl"))
