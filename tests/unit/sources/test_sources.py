"""Listing folders, COCO files and manifests."""

import json
import os
import shutil
import tempfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app import sources
from serve_app.errors import InvalidRequest
from serve_app.records import SourceFile
from serve_app.sources import folder, manifest
from serve_app.sources.files import decode_name
from serve_app.sources.listing import open_listing
from tests.unit.effort import cpu_s

NOBODY = 65534


@pytest.fixture
def root(tmp_path):
    return tmp_path.resolve()


def touch(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"12345")


def listed(root, format="folder", annotations=None, page_size=2000):
    return [file for page in sources.scan(root, format, annotations, page_size=page_size) for file in page]


def labels(root, *args, **kwargs):
    return {file.file_name: file.label for file in listed(root, *args, **kwargs)}


def problem(root, format="folder", annotations=None):
    with pytest.raises(InvalidRequest) as caught:
        listed(root, format, annotations)
    assert str(root) not in caught.value.detail
    return caught.value.detail


def write_coco(path, images=None, annotations=(), categories=({"id": 1, "name": "cat"}, {"id": 2, "name": "dog"})):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 7, "file_name": "a.jpg"}] if images is None else images
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": list(categories)}))
    return path


def write_csv(root, content, name="manifest.csv"):
    path = root / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def peak_bytes_of(iterable):
    tracemalloc.start()
    for _ in iterable:
        pass
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes


# Folders


def test_a_folder_lists_its_images_labelled_by_their_sub_folder(root):
    touch(root, "z.jpg", "cat/1.png", "train/cat/2.webp", "train/dog/3.tiff")
    assert labels(root) == {
        "z.jpg": None,
        "cat/1.png": "cat",
        "train/cat/2.webp": "train/cat",
        "train/dog/3.tiff": "train/dog",
    }


def test_a_listed_file_carries_id_size_and_mtime(root):
    touch(root, "cat/1.png")
    os.utime(root / "cat/1.png", ns=(1, 1_700_000_000_000_000_042))
    mtime_ns = (root / "cat/1.png").stat().st_mtime_ns
    assert listed(root) == [SourceFile("cat/1.png", "cat/1.png", "cat", 5, mtime_ns)]


def test_extensions_of_any_case_make_candidates_and_others_do_not(root):
    images = ["a.jpg", "b.JPEG", "c.Jpe", "d.PNG", "e.webp", "f.gif", "g.bmp", "h.tif", "i.TIFF", "j.avif"]
    touch(root, *images, "k.txt", "l", "jpg", "m.jpg.txt", "n.svg")
    assert [file.file_name for file in listed(root)] == images


def test_images_of_formats_that_are_not_decoded_are_listed_so_that_they_can_be_skipped_with_a_reason(root):
    """A folder of photographs of a telephone would otherwise be a dataset of nothing, without a word."""
    images = ["IMG_1.HEIC", "b.heif", "c.hif", "d.jxl", "e.jp2"]
    touch(root, *images)
    assert [file.file_name for file in listed(root)] == images


def test_hidden_names_and_system_folders_are_left_out(root):
    touch(root, ".a.jpg", ".git/b.jpg", "__MACOSX/c.jpg", "x/__MACOSX/c.jpg", "lost+found/d.jpg", "@eaDir/e.jpg")
    touch(root, "Thumbs.db", "x/._f.jpg", "x/f.jpg")
    assert list(labels(root)) == ["x/f.jpg"]


def test_the_listing_is_sorted_by_path_whatever_the_disk_says(root):
    touch(root, "b/1.jpg", "b.jpg", "b/c/2.jpg", "b-c/3.jpg", "B/4.jpg", "10.jpg", "9.jpg", "b c/5.jpg", "\u00e9/6.jpg")
    paths = [decode_name(file.file_name) for file in listed(root, page_size=2)]
    assert len(paths) == 9
    assert paths == sorted(paths)


def test_odd_names_are_listed_and_told_apart(root):
    names = ["🦊.jpg", "a\nb.jpg", "<b>.jpg", "x" * 251 + ".jpg", "-rf.jpg", "%2e.jpg", "\u00e9.jpg", "e\u0301.jpg"]
    raw = [name.encode() for name in names] + [b"caf\xff.jpg", b"caf\xfe.jpg", b"bytes:%FF.jpg", b"\xff/in.jpg"]
    touch(root, *raw)
    files = listed(root)
    assert sorted(decode_name(file.file_name) for file in files) == sorted(raw)
    assert {file.size_bytes for file in files} == {5}
    assert next(file.label for file in files if file.file_name.endswith("in.jpg")) == "bytes:%FF"


def test_links_to_folders_are_not_entered_and_loops_end(root):
    touch(root, "data/a.jpg", "outside/secret.jpg")
    (root / "data/loop").symlink_to(".")
    (root / "data/up").symlink_to("..")
    (root / "data/out").symlink_to(root / "outside")
    assert list(labels(root / "data")) == ["a.jpg"]


def test_what_is_named_like_an_image_is_listed_without_size_when_it_is_no_file(root):
    touch(root, "a.txt", "folder.jpg/in.jpg")
    os.mkfifo(root / "fifo.jpg")
    (root / "link.jpg").symlink_to("a.txt")
    (root / "dangling.jpg").symlink_to("nothing")
    sizes = {file.file_name: file.size_bytes for file in listed(root)}
    assert sizes == {"dangling.jpg": -1, "fifo.jpg": -1, "folder.jpg/in.jpg": 5, "link.jpg": -1}


def test_pages_are_full_but_the_last_and_none_is_empty(root):
    touch(root, *(f"{number}.jpg" for number in range(6)))
    assert [len(page) for page in sources.scan(root, "folder", None, page_size=4)] == [4, 2]
    assert [len(page) for page in sources.scan(root, "folder", None, page_size=3)] == [3, 3]


def test_an_empty_folder_has_no_pages(root):
    assert list(sources.scan(root, "folder", None)) == []


def test_a_missing_folder_is_refused(root):
    assert "cannot be opened: no such file" in problem(root / "gone")


@pytest.mark.parametrize("mode", [0o000, 0o100], ids=["closed", "enter only"])
def test_an_unreadable_sub_folder_is_named_and_not_passed_over(mode):
    base = Path(tempfile.mkdtemp())
    touch(base, "a.jpg", "private/b.jpg")
    base.chmod(0o755)
    (base / "private").chmod(mode)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        assert "folder 'private' cannot be read: permission denied; let" in problem(base)
    finally:
        if is_root:
            os.seteuid(0)
        (base / "private").chmod(0o700)
        shutil.rmtree(base)


def test_folders_nest_32_deep_and_no_deeper(root):
    touch(root, "d/" * 32 + "a.jpg")
    assert len(listed(root)) == 1
    touch(root, "d/" * 33 + "a.jpg")
    assert "nest deeper than 32" in problem(root)


def test_a_sub_folder_that_goes_while_listing_is_passed_over(root):
    touch(root, "a.jpg", "b.jpg", "gone/1.jpg", "swapped/2.jpg", "z.jpg")
    files = folder.images(root)
    names = [next(files).file_name]
    shutil.rmtree(root / "gone")
    (root / "swapped").rename(root / ".moved")
    (root / "swapped").symlink_to(".moved")
    assert names + [file.file_name for file in files] == ["a.jpg", "b.jpg", "z.jpg"]


def test_an_abandoned_listing_leaves_no_folder_open(root):
    touch(root, "a/b/c/1.jpg", "a/b/c/2.jpg")
    before = len(os.listdir("/dev/fd"))
    files = folder.images(root)
    next(files)
    files.close()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("limited", ["serve_app.sources.MAX_IMAGES", "serve_app.sources.folder.MAX_IMAGES"])
def test_a_dataset_has_a_most_of_images(root, monkeypatch, limited):
    touch(root, "1.jpg", "2.jpg", "3.jpg")
    monkeypatch.setattr(limited, 3)
    assert len(listed(root, page_size=1)) == 3
    monkeypatch.setattr(limited, 2)
    assert "more than" in problem(root)


def test_20000_files_list_in_linear_time_and_constant_memory(root):
    touch(root, "tiny")
    for number in range(20):
        (root / str(number)).mkdir()
        for image in range(1000):
            os.link(root / "tiny", f"{root}/{number}/{image}.jpg")  # a disk makes links faster than files

    def n_listed(part):
        return sum(len(page) for page in sources.scan(part, "folder", None))

    assert n_listed(root) == 20_000
    # Quadratic time would be 400 times that of the part; on a busy machine the ratio of linear time was seen at 98.
    assert cpu_s(lambda: n_listed(root)) < 20 * 8 * cpu_s(lambda: n_listed(root / "0"))
    peaks = [peak_bytes_of(sources.scan(part, "folder", None, page_size=500)) for part in (root / "0", root)]
    assert peaks[1] < 2 * peaks[0]


# COCO


def test_a_coco_label_is_the_category_of_the_largest_annotation(root):
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(1, 6)]
    annotations = [
        {"image_id": 1, "category_id": 1, "area": 10.5, "bbox": [0, 0, 100, 100]},
        {"image_id": 1, "category_id": 2, "area": 11, "segmentation": [[1, 2, 3, 4]], "bbox": [0, 0, 1, 1]},
        {"image_id": 2, "category_id": 2, "bbox": [0, 0, 2, 3.5]},
        {"image_id": 2, "category_id": 1, "bbox": [50, 50, 3, 2]},
        {"image_id": 3, "category_id": 1},
        {"image_id": 4, "category_id": 9, "area": 1},
        {"image_id": 4, "caption": "no category"},
    ]
    path = write_coco(root / "annotations.json", images, annotations)
    expected = {"1.jpg": "dog", "2.jpg": "dog", "3.jpg": "cat", "4.jpg": "9", "5.jpg": None}
    assert labels(root, "coco", path) == expected


def test_a_coco_sample_id_is_the_image_id_and_missing_files_are_listed(root):
    touch(root, "b.jpg")
    images = [
        {"id": 42, "file_name": "b.jpg", "width": 3, "extra": {"deep": [[1]]}},
        {"id": "x/1", "file_name": "./sub//gone.jpg"},
        {"id": 3.0, "file_name": "c.jpg"},
    ]
    files = listed(root, "coco", write_coco(root / "a.json", images))
    assert [(file.sample_id, file.file_name, file.size_bytes) for file in files] == [
        ("42", "b.jpg", 5),
        ("x/1", "sub/gone.jpg", -1),
        ("3", "c.jpg", -1),
    ]
    assert files[0].mtime_ns == (root / "b.jpg").stat().st_mtime_ns


def test_coco_sections_may_come_in_any_order_and_need_no_annotations(root):
    path = root / "a.json"
    path.write_text(
        '\ufeff{"categories": [{"id": 1, "name": "cat"}], "annotations": [{"bbox": 1, "bbox": [1, 1, 2, 2], '
        '"image_id": 1, "category_id": 1}], "images": [{"file_name": "a.jpg", "id": 1}], "info": {"a": [[]]}}'
    )
    assert labels(root, "coco", path) == {"a.jpg": "cat"}
    path.write_text('{"images": [{"file_name": "a.jpg", "id": 1}]}')
    assert labels(root, "coco", path) == {"a.jpg": None}
    path.write_text('{"images": []}')
    assert listed(root, "coco", path) == []


@pytest.mark.parametrize(
    ("annotations", "image", "file_name"),
    [
        ("annotations.json", "a.jpg", "a.jpg"),
        ("annotations.json", "images/a.jpg", "images/a.jpg"),
        ("annotations/instances_train.json", "train/a.jpg", "train/a.jpg"),
        ("annotations/instances_train.json", "images/train/a.jpg", "images/train/a.jpg"),
        ("valid/_annotations.coco.json", "valid/a.jpg", "valid/a.jpg"),
        ("annotations.json", "nowhere/a.jpg", "a.jpg"),
    ],
    ids=["root", "images", "split", "images/split", "beside the file", "missing"],
)
def test_coco_images_are_found_in_the_root_or_a_usual_sub_folder(root, annotations, image, file_name):
    touch(root, image)
    files = listed(root, "coco", write_coco(root / annotations))
    assert [(file.sample_id, file.file_name) for file in files] == [("7", file_name)]


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../b.jpg", "/etc/passwd", "bytes:../%FF.jpg", "a\0.jpg"])
def test_a_coco_name_that_leads_outside_is_refused_by_its_entry(root, name):
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": name}]
    detail = problem(root, "coco", write_coco(root / "a.json", images))
    assert detail.startswith("images[1] of 'a.json': ")
    assert "leads outside" in detail


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("", "'a.json' is not valid UTF-8 JSON at byte 0: parse error: premature EOF"),
        ('{"images": [{"id": 1', "at byte 20: parse error: premature EOF"),
        ('{"images": [], oops}', "at byte 16: lexical error: invalid char in json text"),
        ('{"images": []} x', "at byte 16: parse error: trailing garbage"),
        ('{"images": [{"id": NaN}]}', "'id' must be a whole number or a text"),
        ('{"images": [{"id": ' + "9" * 5000 + "}]}", "a number has thousands of digits"),
        (b'{"images": "\xff"}', "lexical error: invalid bytes in UTF8 string"),
        ('{"images": []}'.encode("utf-16"), "at byte 1"),
        ("[" * 100_000, "brackets nest deeper than 64"),
        ("[]", "it has no array 'images' (arrays found: none)"),
        ('{"info": {}, "features": []}', "(arrays found: features, info)"),
        ('{"images": ["a.jpg"]}', "images[0] of 'a.json': is not an object"),
        ('{"images": [{"id": 1}]}', "images[0] of 'a.json': has no 'file_name'"),
        ('{"images": [{"file_name": "a.jpg"}]}', "'id' must be a whole number or a text, not None"),
        ('{"images": [{"id": true, "file_name": "a.jpg"}]}', "'id' must be a whole number or a text, not True"),
        ('{"images": [{"id": 1, "file_name": ""}]}', "the file name is empty"),
        ('{"images": [{"id": 1, "file_name": "."}]}', "the file name is empty"),
        ('{"images": [{"id": 1, "file_name": "bytes:a"}]}', "is not a file name"),
        ('{"images": [], "annotations": [{"category_id": 1}]}', "annotations[0] of 'a.json': 'image_id' must be"),
        ('{"images": [], "categories": [{"name": "cat"}]}', "categories[0] of 'a.json': 'id' must be"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_file_that_is_not_coco_is_refused_with_the_place(root, content, detail):
    path = root / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert detail in problem(root, "coco", path)


def test_the_byte_where_a_long_file_breaks_is_exact(root):
    good = '{"images": [' + ", ".join(f'{{"id": {n}, "file_name": "{n}.jpg"}}' for n in range(10_000))
    path = root / "a.json"
    path.write_text(good + ", ? ]}")
    assert f"at byte {len(good) + 3:,}:" in problem(root, "coco", path)


def test_an_annotation_file_that_went_or_became_a_pipe_is_refused(root):
    assert "annotation file 'a.json' cannot be opened: no such file" in problem(root, "coco", root / "a.json")
    os.mkfifo(root / "a.json")
    assert "'a.json' is not a regular file" in problem(root, "coco", root / "a.json")


def test_polygons_are_not_kept_in_memory(root):
    peaks = []
    for n_corners in (10_000, 60_000):
        polygon = {"image_id": 7, "category_id": 1, "segmentation": [list(range(n_corners))]}
        path = write_coco(root / "a.json", annotations=[polygon])
        peaks.append(peak_bytes_of(sources.scan(root, "coco", path)))
    assert peaks[1] < 1.5 * peaks[0]


# Manifests


@pytest.mark.parametrize(
    "content",
    [
        "file_name,label\na.jpg,cat\nsub/b.jpg,\n",
        "file_name;label\na.jpg;cat\nsub/b.jpg;\n",
        "file_name\tlabel\r\na.jpg\tcat\r\nsub/b.jpg\r\n",
        b"\xef\xbb\xbffile_name,label\na.jpg,cat\nsub/b.jpg,",
        '"extra, column";label; File_Name \nx;cat;"a.jpg"\n\n"y;y";;./sub//b.jpg\n',
        "category,path\ncat,a.jpg\n,sub/b.jpg",
        "image,class,width\na.jpg,cat,3\nsub/b.jpg",
        "filename,label\na.jpg,cat\nsub/b.jpg,",
    ],
    ids=["comma", "semicolon", "tab and CRLF", "byte mark", "quoted", "aliases", "short row", "filename"],
)
def test_a_csv_manifest_lists_names_and_labels(root, content):
    touch(root, "a.jpg")
    files = listed(root, "manifest", write_csv(root, content))
    assert [(f.sample_id, f.file_name, f.label, f.size_bytes) for f in files] == [
        ("a.jpg", "a.jpg", "cat", 5),
        ("sub/b.jpg", "sub/b.jpg", None, -1),
    ]


def test_a_csv_manifest_may_have_one_column_or_no_row(root):
    assert labels(root, "manifest", write_csv(root, "file_name\na;b.jpg\n")) == {"a;b.jpg": None}
    assert labels(root, "manifest", write_csv(root, "file_name,label\n")) == {}


def test_a_manifest_names_odd_files_as_the_service_spells_them(root):
    touch(root, b"caf\xff.jpg", "a\nb.jpg", "🦊.jpg")
    path = write_csv(root, 'file_name\nbytes:caf%FF.jpg\n"a\nb.jpg"\n🦊.jpg\n')
    files = listed(root, "manifest", path)
    assert [file.file_name for file in files] == ["bytes:caf%FF.jpg", "a\nb.jpg", "🦊.jpg"]
    assert {file.size_bytes for file in files} == {5}


@pytest.mark.parametrize("name", ["../secret.jpg", "a/../../b.jpg", "/etc/passwd", "bytes:../%FF.jpg", "a\0.jpg"])
def test_a_manifest_name_that_leads_outside_is_refused_by_its_line(root, name):
    detail = problem(root, "manifest", write_csv(root, f"file_name\na.jpg\n{name}\n"))
    assert detail.startswith("line 3 of 'manifest.csv': ")
    assert "leads outside" in detail


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ("", "no column 'file_name' (columns found: none)"),
        ("name,width\nx,3\n", "no column 'file_name' (columns found: name, width); add one"),
        ("file_name\n,\n", "line 2 of 'manifest.csv': the file name is empty"),
        ('file_name\na.jpg\n"b.jpg', "line 3 of 'manifest.csv' is not CSV: unexpected end of data"),
        ("file_name\n" + "x" * 200_000, "line 2 of 'manifest.csv' is not CSV: field larger"),
        ("file_name\n" + "x" * 2_000_000, "line 2 of 'manifest.csv' has over 1,048,576 bytes"),
        (b"file_name\na.jpg\n" + "é.jpg\n".encode("latin-1"), "line 3 of 'manifest.csv' is not UTF-8; save"),
    ],
    ids=["empty", "columns", "no name", "open quote", "long field", "long line", "Latin-1"],
)
def test_a_broken_csv_manifest_is_refused_with_the_place(root, content, detail):
    assert detail in problem(root, "manifest", write_csv(root, content))


@pytest.mark.parametrize("name", ["manifest.parquet", "named-otherwise"])
def test_a_parquet_manifest_lists_names_and_labels(root, name):
    touch(root, "a.jpg")
    table = pa.table({"width": [1, 2, 3], "label": ["cat", None, ""], "file_name": ["a.jpg", "b.jpg", "c.jpg"]})
    pq.write_table(table, root / name)
    files = listed(root, "manifest", root / name)
    assert [(file.file_name, file.label, file.size_bytes) for file in files] == [
        ("a.jpg", "cat", 5),
        ("b.jpg", None, -1),
        ("c.jpg", None, -1),
    ]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([3, None]), ["3", None]),
        (pa.array([3.0, float("nan")]), ["3", None]),
        (pa.array([0.5, 1e300]), ["0.5", str(int(1e300))]),
        (pa.array(["cat", "dog"]).dictionary_encode(), ["cat", "dog"]),
        (pa.array(["cat", "dog"], pa.large_string()), ["cat", "dog"]),
        (pa.nulls(2), [None, None]),
    ],
    ids=["integer", "float of integers", "float", "dictionary", "large string", "null"],
)
def test_parquet_labels_become_text(root, column, expected):
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "class": column}), root / "m.parquet")
    assert list(labels(root, "manifest", root / "m.parquet").values()) == expected


def test_a_parquet_manifest_needs_no_labels(root):
    pq.write_table(pa.table({"path": ["a.jpg"]}), root / "m.parquet")
    assert labels(root, "manifest", root / "m.parquet") == {"a.jpg": None}


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"name": ["a.jpg"]}, "no column 'file_name' (columns found: name)"),
        ({"image": [{"bytes": b"", "path": "a.jpg"}]}, "the column 'image' of 'm.parquet' is of type struct"),
        ({"path": ["a.jpg", None]}, "row 2 of 'm.parquet': the file name must be a text, not NoneType"),
        ({"path": ["a.jpg", "../b.jpg"]}, "row 2 of 'm.parquet': '../b.jpg' leads outside"),
        ({"path": ["a.jpg"], "label": [["x"]]}, "the column 'label' of 'm.parquet' is of type list"),
    ],
    ids=["columns", "nested", "null", "outside", "label"],
)
def test_an_unusable_parquet_manifest_is_refused_with_the_place(root, columns, detail):
    pq.write_table(pa.table(columns), root / "m.parquet")
    assert detail in problem(root, "manifest", root / "m.parquet")


def test_a_broken_parquet_manifest_is_refused(root):
    path = root / "m.parquet"
    path.write_bytes(b"not parquet at all")
    assert "'m.parquet' cannot be read as Parquet" in problem(root, "manifest", path)
    pq.write_table(pa.table({"path": [f"{number}.jpg" for number in range(1000)]}), path, compression="none")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as Parquet" in problem(root, "manifest", path)
    path.write_bytes(whole.replace(b"1.jpg", b"\xff.jpg"))
    assert "cannot be read as Parquet" in problem(root, "manifest", path)


def test_two_parquet_columns_of_one_name_are_refused(root):
    table = pa.Table.from_arrays([pa.array(["a.jpg"]), pa.array(["b.jpg"])], names=["path", "path"])
    pq.write_table(table, root / "m.parquet")
    assert "'m.parquet' has two columns 'path'" in problem(root, "manifest", root / "m.parquet")


def test_a_long_manifest_is_read_as_a_stream(root):
    peaks = []
    for n_rows in (2_000, 20_000):
        path = write_csv(root, "file_name,label\n" + "".join(f"{number}.jpg,cat\n" for number in range(n_rows)))
        peaks.append(peak_bytes_of(manifest.images(open_listing(path), path.name)))
    assert peaks[1] < 1.5 * peaks[0]


TOKENS = [b"{", b"}", b"[", b"]", b'"', b",", b";", b":", b"\n", b"\r", b"\0", b"\xff", b"null", b"1e400", b"-1", b".."]
COCO = b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 1, "area": 2}]}'


@pytest.mark.parametrize(
    ("content", "format"), [(COCO, "coco"), (b'file_name,label\n"a.jpg",cat\nb.jpg,\n', "manifest")]
)
@given(edits=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 5), st.sampled_from(TOKENS)), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_annotation_file_is_listed_or_refused(root, content, format, edits):
    for start, n_removed, inserted in edits:
        content = content[:start] + inserted + content[start + n_removed :]
    path = root / "annotations"
    path.write_bytes(content)
    with suppress(InvalidRequest):
        for file in listed(root, format, path):
            assert file.sample_id
            assert file.file_name
            assert ".." not in file.file_name.split("/")


# Finding out


@pytest.mark.parametrize(
    "name",
    [
        "annotations.json",
        "_annotations.coco.json",
        "instances.json",
        "instances_val2017.json",
        "annotations/instances_x.json",
    ],
)
def test_a_well_known_coco_file_is_found(root, name):
    touch(root, "a.jpg")
    path = write_coco(root / name)
    write_csv(root, "file_name\na.jpg\n")
    assert sources.detect(root, None) == ("coco", path)
    assert sources.detect(root, None, "coco") == ("coco", path)


@pytest.mark.parametrize("name", ["manifest.csv", "metadata.csv", "manifest.parquet", "metadata.parquet"])
def test_a_well_known_manifest_is_found(root, name):
    if name.endswith(".csv"):
        write_csv(root, "file_name\na.jpg\n", name)
    else:
        pq.write_table(pa.table({"file_name": ["a.jpg"]}), root / name)
    assert sources.detect(root, None) == ("manifest", root / name)
    assert sources.detect(root, None, "manifest") == ("manifest", root / name)


def test_a_folder_without_annotations_is_a_folder(root):
    touch(root, "a.jpg", "labels.json", "x/annotations.json")
    assert sources.detect(root, None) == ("folder", None)
    assert sources.detect(root, None, "folder") == ("folder", None)


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "", '{"images": []}', '{"images": 1, "annotations": 2}', "[" * 100_000, '{"features": []}', "\0"],
    ids=["broken", "list", "empty", "half", "numbers", "brackets", "other", "binary"],
)
def test_a_stray_file_of_a_well_known_name_does_not_break_a_folder(root, content):
    touch(root, "a.jpg")
    for name in ("annotations.json", "instances_1.json", "metadata.csv", "manifest.parquet"):
        (root / name).write_text(content)
    assert sources.detect(root, None) == ("folder", None)
    assert list(labels(root)) == ["a.jpg"]


def test_a_well_known_name_that_is_a_link_pipe_or_folder_is_left_alone(root):
    data = root / "data"
    data.mkdir()
    (data / "annotations").symlink_to(write_coco(root / "out/instances.json").parent)
    (data / "_annotations.coco.json").symlink_to(root / "out/instances.json")
    os.mkfifo(data / "annotations.json")
    (data / "metadata.csv").mkdir()
    assert sources.detect(data, None) == ("folder", None)


def test_several_coco_files_are_not_chosen_from_in_silence(root):
    write_coco(root / "annotations/instances_train.json")
    chosen = write_coco(root / "annotations/instances_val.json")
    with pytest.raises(InvalidRequest, match=r"instances_train\.json, annotations/instances_val\.json\); name one"):
        sources.detect(root, None)
    assert sources.detect(root, chosen) == ("coco", chosen)


@pytest.mark.parametrize(
    ("name", "wanted", "format"),
    [
        ("x.json", "auto", "coco"),
        ("X.JSON", "auto", "coco"),
        ("x.csv", "auto", "manifest"),
        ("x.tsv", "auto", "manifest"),
        ("x.parquet", "auto", "manifest"),
        ("x.txt", "coco", "coco"),
        ("x.txt", "manifest", "manifest"),
    ],
)
def test_the_format_of_a_named_file_follows_from_its_suffix_or_the_caller(root, name, wanted, format):
    assert sources.detect(root, root / name, wanted) == (format, root / name)


@pytest.mark.parametrize(
    ("name", "wanted", "detail"),
    [
        ("x.txt", "auto", "cannot tell the format of 'x.txt'"),
        ("x.csv", "folder", "takes no annotations"),
        (None, "coco", r"no coco file in the folder \(looked for annotations.json"),
        (None, "manifest", r"no manifest file in the folder \(looked for manifest.csv"),
    ],
)
def test_a_format_without_a_fitting_file_is_refused_with_the_way_out(root, name, wanted, detail):
    with pytest.raises(InvalidRequest, match=detail):
        sources.detect(root, root / name if name else None, wanted)


def test_an_annotated_format_needs_its_file(root):
    assert "needs its annotation file" in problem(root, "coco")
