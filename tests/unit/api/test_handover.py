"""Export for other tools over HTTP: CSV, COCO, YOLO's list and plain lists, on the real store."""

import csv
import io
import json
import shlex
import zipfile

import pytest
import yaml

from serve_app.api import handover
from serve_app.errors import Conflict
from tests.unit.api.test_columns import CSV, NAMES, put, tag
from tests.unit.api.test_source_columns import coco, photos, register

__all__ = ["photos"]


async def export(client, dataset, format, status=200, **params):
    answer = await client.get(f"/datasets/{dataset['id']}/export", params={"format": format, **params})
    assert answer.status_code == status, answer.text
    return answer


def rows_of(answer):
    return list(csv.DictReader(io.StringIO(answer.text)))


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(handover, "EXPORT_PAGE_ROWS", 2)


async def test_csv_has_the_columns_and_tags_of_the_chosen_samples_without_any_vectors(client, dataset, small_pages):
    await put(client, dataset, b"file_name,width,ok\nrose/a.png,640,true\ntulip/c.png,80,false\n", CSV)
    for name in ("b c", "a"):
        await tag(client, dataset, name, {"sample_ids": [NAMES[0]]})
    answer = await export(client, dataset, "csv", where="width > 0")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="flowers.csv"' in answer.headers["content-disposition"]
    first, second = rows_of(answer)
    assert first == {
        **{"sample_id": NAMES[0], "file_name": NAMES[0], "label": "rose"},
        **{"width": "640", "ok": "true", "tag": "a/b c"},
    }
    assert (second["file_name"], second["ok"], second["tag"]) == ("tulip/c.png", "false", "")
    assert [row["file_name"] for row in rows_of(await export(client, dataset, "csv"))] == NAMES


async def test_tags_of_an_exported_csv_go_back_in_and_other_samples_keep_theirs(client, dataset):
    await tag(client, dataset, "a b", {"where": "label = 'rose'"})
    await tag(client, dataset, "c", {"sample_ids": NAMES})
    text = (await export(client, dataset, "csv", where="label = 'rose'")).text
    await tag(client, dataset, "a b", {"where": "label IS NOT NULL"}, "DELETE")
    await tag(client, dataset, "later", {"where": "label = 'rose'"})
    change = await put(client, dataset, text.encode(), CSV)
    assert (change["columns"], change["matched"]) == (["tag"], 2)
    tags = {entry["value"]: entry["count"] for entry in (await client.get(f"/datasets/{dataset['id']}/tags")).json()}
    assert tags == {"a b": 2, "c": 5}


async def test_tags_of_an_exported_parquet_go_back_in(client, embedded):
    await tag(client, embedded, "keep", {"where": "label = 'rose'"})
    content = (await client.get(f"/datasets/{embedded['id']}/embeddings/export")).content
    await tag(client, embedded, "keep", None, "DELETE")
    assert (await put(client, embedded, content))["columns"] == ["width", "height", "format", "tag"]
    assert (await client.get(f"/datasets/{embedded['id']}/tags")).json() == [{"value": "keep", "count": 2}]


@pytest.mark.parametrize("tags", ["a//b", "x" * 101, "a\tb"])
async def test_a_text_that_is_no_tag_is_refused(client, dataset, tags):
    body = f'file_name,tag\nrose/a.png,"{tags}"\n'.encode()
    answer = await client.put(f"/datasets/{dataset['id']}/columns", content=body, headers=CSV)
    assert (answer.status_code, "is no tag" in answer.json()["detail"]) == (422, True)


async def test_csv_has_vectors_when_asked_for(client, embedded):
    rows = rows_of(await export(client, embedded, "csv", with_vectors=True))
    assert len(rows) == 4
    lengths = {len(list(map(float, row["vector"].split()))) for row in rows}
    assert (lengths, {row["model_name"] for row in rows}) == ({768}, {"dinov2-base"})


async def test_vectors_of_a_dataset_without_any_are_refused_before_the_answer_begins(client, dataset):
    assert (await export(client, dataset, "csv", 400, with_vectors=True)).json()["code"] == "no_embeddings"
    assert (await export(client, dataset, "coco", 422, with_vectors=True)).json()["code"] == "invalid_request"
    assert (await export(client, dataset, "csv", 422, where="nothing = 1")).json()["code"] == "invalid_filter"


async def test_lists_have_a_name_or_an_absolute_path_in_each_line(client, dataset, root, small_pages):
    names = (await export(client, dataset, "list", where="label = 'tulip'")).text.splitlines()
    assert names == NAMES[2:]
    paths = (await export(client, dataset, "yolo", where="label = 'tulip'")).text.splitlines()
    assert paths == [str(root / "flowers" / name) for name in names]


async def test_names_that_no_list_can_hold_are_refused(client, root):
    (root / "odd").mkdir()
    (root / "odd" / "a\nb.png").touch()
    (root / "odd" / "c.png").touch()
    dataset = await register(client, root / "odd", "odd")
    assert "1 file names have line breaks" in (await export(client, dataset, "list", 422)).json()["detail"]
    assert (await export(client, dataset, "list", where="file_name = 'c.png'")).text == "c.png\n"


async def test_every_character_at_which_a_line_ends_is_one_that_no_list_can_hold(client, root):
    ends = [f"a{chr(n)}b.png" for n in range(1, 0x3000) if len(f"a{chr(n)}b".splitlines()) > 1]
    (root / "odd").mkdir()
    for name in [*ends, "\udcff\x85.png", "\udcff\n.png", "\udcff.png", "%0A.png", "bytes:%0A.png"]:
        (root / "odd" / name).touch()
    dataset = await register(client, root / "odd", "odd")
    for format in ("list", "yolo"):
        refused = (await export(client, dataset, format, 422)).json()["detail"]
        assert refused.startswith(f"{len(ends) + 2} file names have line breaks, such as {ends[0]!r}")


async def test_a_name_that_is_no_unicode_keeps_its_bytes_in_a_list(client, root):
    (root / "odd").mkdir()
    (root / "odd" / "é\udcff.png").touch()
    dataset = await register(client, root / "odd", "odd")
    assert (await export(client, dataset, "list")).content == "é".encode() + b"\xff.png\n"


async def test_coco_of_a_folder_has_its_labels_as_categories(client, dataset, root, small_pages):
    await put(client, dataset, b"file_name,width,height\nrose/a.png,32,24\n", CSV)
    found = json.loads((await export(client, dataset, "coco", where="file_name <> 'rose/b.png'")).content)
    assert [image["file_name"] for image in found["images"]] == [NAMES[0], *NAMES[2:]]
    assert found["images"][0] == {"id": 1, "file_name": NAMES[0], "width": 32, "height": 24}
    names = {category["id"]: category["name"] for category in found["categories"]}
    labels = {mark["image_id"]: names[mark["category_id"]] for mark in found["annotations"]}
    assert labels == {1: "rose", 2: "tulip", 3: "tulip", 4: "tulip"}
    (root / "again.json").write_text(json.dumps(found))
    again = await register(client, root / "flowers", "again", format="coco", annotations=str(root / "again.json"))
    samples = (await client.get(f"/datasets/{again['id']}/samples")).json()["items"]
    assert [sample["label"] for sample in samples] == ["rose", "tulip", "tulip", "tulip"]


async def test_coco_of_no_samples_is_a_coco_file_nevertheless(client, dataset):
    found = json.loads((await export(client, dataset, "coco", where="label = 'none'")).content)
    assert (found["images"], found["annotations"], found["categories"]) == ([], [], [])


MARKS = [
    {
        "id": 7,
        "image_id": 0,
        "category_id": 1,
        "bbox": [0.5, 1, 2, 3],
        "segmentation": [[0, 1.25, 2, 3, 4, 5]],
        "score": 0.1,
    },
    {"id": 8, "image_id": 1, "category_id": 2, "area": 5, "segmentation": {"counts": [1, 2], "size": [2, 2]}},
    {"id": 9, "image_id": 2, "category_id": 2, "area": 5, "é": None},
]


async def test_coco_keeps_the_entries_of_the_chosen_images_as_they_are(client, photos):
    images = [{"id": n, "file_name": f"{n}.png", "width": 32, "flags": {"deep": [[[n]]]}} for n in range(3)]
    given = json.loads(coco(images, MARKS)) | {"licenses": [{"id": 1, "name": "CC"}], "more": [1]}
    (photos / "c.json").write_text(json.dumps(given))
    dataset = await register(client, photos, format="coco", annotations=str(photos / "c.json"))
    await tag(client, dataset, "keep", {"sample_ids": ["0", "2"]})
    found = json.loads((await export(client, dataset, "coco", where="tag = 'keep'")).content)
    assert found["images"] == [images[0], images[2]]
    assert found["annotations"] == [MARKS[0], MARKS[2]]
    assert (found["categories"], found["licenses"]) == (given["categories"], given["licenses"])


async def test_coco_breaks_off_if_the_file_has_lost_a_chosen_image(client, photos):
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(3)]
    (photos / "c.json").write_text(coco(images))
    dataset = await register(client, photos, format="coco", annotations=str(photos / "c.json"))
    (photos / "c.json").write_text(coco(images[1:]))
    with pytest.raises(RuntimeError) as broken:
        await export(client, dataset, "coco")
    assert isinstance(broken.value.__cause__, Conflict)


async def test_an_export_breaks_off_across_a_rescan(client, dataset, root, small_pages, services, monkeypatch):
    read = handover.export.pages

    async def rescanning(first, more):
        pages = read(first, more)
        yield await anext(pages)
        (root / "flowers" / "new.png").touch()
        await client.post(f"/datasets/{dataset['id']}/rescan")
        async for page in pages:
            yield page

    monkeypatch.setattr(handover.export, "pages", rescanning)
    with pytest.raises(RuntimeError) as broken:
        await export(client, dataset, "list")
    assert isinstance(broken.value.__cause__, Conflict)


async def test_images_inside_files_have_no_paths(client, root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [b"x"], "label": ["a"]}), root / "t.parquet")
    dataset = await register(client, root / "t.parquet", "t")
    assert "no paths" in (await export(client, dataset, "yolo", 422)).json()["detail"]
    assert rows_of(await export(client, dataset, "csv"))[0]["label"] == "a"


SIZED = [{"id": n, "file_name": f"{n}.png", "width": 200, "height": 100} for n in range(3)]
BOXES = [
    {"id": 1, "image_id": 2, "category_id": 3, "bbox": [0, 0, 200, 100]},
    {"id": 2, "image_id": 0, "category_id": 1, "bbox": [10.5, 20, 30, 40]},
    {"id": 3, "image_id": 2, "category_id": 1, "bbox": [150, 80, 100, 40.25]},
    {"id": 4, "image_id": 2, "category_id": 2, "bbox": [0, 0, 9, 9], "iscrowd": 1},
    {"id": 5, "image_id": 2, "category_id": 2, "area": 7},
    {"id": 6, "image_id": 2, "category_id": 2, "bbox": [500, 500, 9, 9]},
]


async def with_boxes(client, photos, images=SIZED, marks=BOXES, name="photos"):
    (photos / f"{name}.json").write_text(coco(images, marks))
    return await register(client, photos, name, format="coco", annotations=str(photos / f"{name}.json"))


def unpacked(answer):
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {entry.filename: archive.read(entry).decode() for entry in archive.infolist()}


def settings_in(files):
    return [line for line in files["data.yaml"].splitlines() if not line.startswith("#")]


def in_pixels(text, width=200, height=100):
    """The class and [x, y, width, height] of each line of labels, as COCO counts."""
    rows = [list(map(float, line.split())) for line in text.splitlines()]
    return [(int(c), [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]) for c, x, y, w, h in rows]


async def test_boxes_of_a_coco_file_come_back_from_yolos_labels(client, photos, small_pages):
    dataset = await with_boxes(client, photos)
    answer = await export(client, dataset, "yolo-zip")
    assert answer.headers["content-type"] == "application/zip"
    assert 'filename="photos.zip"' in answer.headers["content-disposition"]
    files = unpacked(answer)
    assert in_pixels(files["labels/0.txt"]) == [(0, pytest.approx(BOXES[1]["bbox"], abs=1e-4))]
    whole, cut = in_pixels(files["labels/2.txt"])
    assert whole == (2, pytest.approx(BOXES[0]["bbox"], abs=1e-4))
    assert cut == (0, pytest.approx([150, 80, 50, 20], abs=1e-4))
    assert files["labels/1.txt"] == ""
    assert files["train.txt"].splitlines() == ["./images/0.png", "./images/1.png", "./images/2.png"]
    lines = files["data.yaml"].splitlines()
    assert lines[-4:] == ["names:", '  0: "cat"', '  1: "dog"', '  2: "fox"']
    assert f"ln -s {photos} images" in lines[0]
    assert len(files) == 5
    assert (await export(client, dataset, "yolo-zip")).content == answer.content


async def test_a_filter_and_the_splits_hold_for_yolos_labels(client, photos):
    dataset = await with_boxes(client, photos)
    await put(client, dataset, b"sample_id,split\n0,train\n2,valid\n", CSV)
    files = unpacked(await export(client, dataset, "yolo-zip", where="split IS NOT NULL"))
    assert {name: files[name] for name in ("train.txt", "val.txt")} == {
        **{"train.txt": "./images/0.png\n", "val.txt": "./images/2.png\n"},
    }
    assert {name for name in files if name.startswith("labels/")} == {"labels/0.txt", "labels/2.txt"}
    assert settings_in(files)[:2] == ["train: train.txt", "val: val.txt"]


async def test_images_that_lie_in_a_folder_images_keep_their_names(client, photos):
    (photos / "images" / "train").mkdir(parents=True)
    (photos / "0.png").rename(photos / "images" / "train" / "0.png")
    dataset = await with_boxes(client, photos, [SIZED[0] | {"file_name": "images/train/0.png"}], BOXES[1:2])
    files = unpacked(await export(client, dataset, "yolo-zip"))
    assert files["train.txt"] == "./images/train/0.png\n"
    assert "labels/train/0.txt" in files
    assert f"ln -s {photos}/images images" in files["data.yaml"]


@pytest.mark.parametrize(
    ("images", "marks", "says"),
    [
        (SIZED, BOXES[4:5], "no chosen image has a box"),
        ([{"id": 0, "file_name": "0.png"}], BOXES[1:2], "no width and height of '0.png'"),
        ([SIZED[0], SIZED[1] | {"file_name": "0.jpg"}], BOXES[1:2], "would share the labels"),
        ([SIZED[0], SIZED[1] | {"file_name": "É.png"}, SIZED[2] | {"file_name": "e\u0301.jpg"}], BOXES, "would share"),
        ([SIZED[0] | {"file_name": "a/images/0.png"}], BOXES[1:2], "inside its folders"),
        ([SIZED[0] | {"file_name": "cat./0.png"}], BOXES[1:2], "a folder of 'cat./0.png' ends in a dot"),
        ([SIZED[0] | {"file_name": "a\u20280.png"}], BOXES[1:2], "such as 'a\\u20280.png'"),
    ],
    ids=[
        "no boxes",
        "no sizes",
        "one stem twice",
        "one stem but for capitals and the spelling of accents",
        "a folder images further down",
        "a folder that ends in a dot",
        "a line's end in a name",
    ],
)
async def test_what_yolo_could_not_find_is_refused_with_the_reason(client, photos, images, marks, says):
    for image in images:
        (photos / image["file_name"]).parent.mkdir(parents=True, exist_ok=True)
        (photos / image["file_name"]).touch()
    dataset = await with_boxes(client, photos, images, marks)
    assert says in (await export(client, dataset, "yolo-zip", 422)).json()["detail"]


async def test_a_dataset_without_a_coco_file_has_no_boxes_for_yolo(client, dataset):
    refused = (await export(client, dataset, "yolo-zip", 422)).json()["detail"]
    assert "its labels are of whole images" in refused


async def test_two_ids_of_one_file_share_its_labels_and_its_line(client, photos):
    images = [SIZED[0], SIZED[1] | {"file_name": "./0.png"}, SIZED[2]]
    marks = [BOXES[1], BOXES[0] | {"image_id": 1}]
    dataset = await with_boxes(client, photos, images, marks)
    answer = await export(client, dataset, "yolo-zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["data.yaml", "train.txt", "labels/0.txt", "labels/2.txt"]
    files = unpacked(answer)
    assert files["train.txt"] == "./images/0.png\n./images/2.png\n"
    assert [kind for kind, _ in in_pixels(files["labels/0.txt"])] == [0, 2]
    await put(client, dataset, b"sample_id,split\n0,train\n1,val\n", CSV)
    refused = (await export(client, dataset, "yolo-zip", 422)).json()["detail"]
    assert "the ids '0' and '1' both name '0.png', one for train and one for val" in refused


async def test_an_image_that_the_coco_file_has_lost_is_no_background_for_yolo(client, photos):
    dataset = await with_boxes(client, photos)
    (photos / "photos.json").write_text(coco([SIZED[0], SIZED[2]], BOXES))
    refused = (await export(client, dataset, "yolo-zip", 409)).json()
    assert "has changed since it was scanned: 1 images are gone; rescan" in refused["detail"]


def boxed(image_id, **fields):
    return {"id": 50 + image_id, "image_id": image_id, "category_id": 1, **fields}


NO_BOXES = {
    "whose box is not four numbers": boxed(1, bbox=["1", "2", "3", "4"]),
    "without a box ('bbox'), such as polygons alone": boxed(1, bbox=None),
    "whose box has no width or height above 0": boxed(1, bbox=[1, 2, -3, 4]),
    "whose box has no part inside the image": boxed(1, bbox=[900, 900, 3, 4]),
    "without a category ('category_id')": boxed(1, bbox=[1, 2, 3, 4], category_id=None),
    "of crowds ('iscrowd')": boxed(1, bbox=[1, 2, 3, 4], iscrowd=1),
}


async def test_annotations_without_usable_boxes_are_counted_and_make_no_background(client, photos):
    marks = [*NO_BOXES.values(), boxed(0, bbox=[1, 2, 3, 4]), boxed(0, bbox=None)]
    dataset = await with_boxes(client, photos, marks=marks)
    files = unpacked(await export(client, dataset, "yolo-zip"))
    assert files["train.txt"] == "./images/0.png\n./images/2.png\n"
    assert (files["labels/2.txt"], "labels/1.txt" in files) == ("", False)
    counts = {reason: 2 if "polygons" in reason else 1 for reason in NO_BOXES}
    said = [line for line in files["data.yaml"].splitlines() if line.startswith("# Left out")]
    assert set(said[:-1]) == {f"# Left out: {number} annotations {reason}" for reason, number in counts.items()}
    assert said[-1].startswith("# Left out: 1 images with no annotation but these")


async def test_a_split_that_names_no_list_of_yolo_is_refused_with_the_way_out(client, photos):
    dataset = await with_boxes(client, photos)
    await put(client, dataset, b"sample_id,split\n0,val2017\n1,dev\n2, VALID \n", CSV)
    refused = (await export(client, dataset, "yolo-zip", 422)).json()["detail"]
    assert "the column 'split' has 'dev', 'val2017', and YOLO has lists of train, val" in refused
    assert "leave these images out with 'where'" in refused
    files = unpacked(await export(client, dataset, "yolo-zip", where="sample_id = '2'"))
    assert files["val.txt"] == "./images/2.png\n"


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ("test train", ["train: train.txt", "test: test.txt", "val: train.txt  # no image has this split"]),
        ("test val", ["val: val.txt", "test: test.txt", "train: val.txt  # no image has this split"]),
        ("test test", ["test: test.txt"] + [f"{s}: test.txt  # no image has this split" for s in ("train", "val")]),
    ],
)
async def test_a_list_that_is_missing_is_that_of_training_or_validation_before_that_of_tests(
    client, photos, splits, says
):
    dataset = await with_boxes(client, photos)
    first, second = splits.split()
    await put(client, dataset, f"sample_id,split\n0,{first}\n2,{second}\n".encode(), CSV)
    files = unpacked(await export(client, dataset, "yolo-zip", where="split IS NOT NULL"))
    assert settings_in(files)[: len(says)] == says


async def test_a_shell_takes_the_link_and_yaml_takes_the_names_of_classes(client, root):
    folder = root / "it's $HOME `x`"
    folder.mkdir()
    (folder / "0.png").touch()
    names = ["a\x7fb", "c\x85d\x9f", 'e\u2028"f\\', "\ufeffg\ufffe", "h\ti\n", "é 🐈"]
    given = json.loads(coco(SIZED[:1], BOXES[1:2])) | {
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)]
    }
    (folder / "c.json").write_text(json.dumps(given))
    dataset = await register(client, folder, format="coco", annotations=str(folder / "c.json"))
    about = unpacked(await export(client, dataset, "yolo-zip"))["data.yaml"]
    assert list(yaml.safe_load(about)["names"].values()) == names
    link = about.splitlines()[0].split(": ")[1]
    assert shlex.split(link) == ["ln", "-s", str(folder), "images"]


async def test_a_folder_with_a_line_break_is_refused_by_yolo(client, root):
    (root / "two\u2028lines").mkdir()
    (root / "two\u2028lines" / "0.png").touch()
    dataset = await with_boxes(client, root / "two\u2028lines", SIZED[:1], BOXES[1:2])
    refused = (await export(client, dataset, "yolo-zip", 422)).json()["detail"]
    assert "has line breaks or control characters" in refused
