"""Public reports tried over HTTP: what tools wrote is found with its labels, or refused or told with a reason."""

import io
import json
import struct
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.heic import HEIC
from tests.unit.api.conftest import png

PNG = png()
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def put(folder, *names, data=PNG):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def coco(folder, path, *names, categories=CATEGORIES, **more):
    """A COCO file in which the first image is of the first category, the second of the second, and so on."""
    images = [{"id": i, "file_name": name} for i, name in enumerate(names, 1)]
    boxes = [{"id": i, "image_id": i, "category_id": categories[i - 1]["id"]} for i in range(1, len(categories) + 1)]
    put(
        folder,
        path,
        data=json.dumps({"images": images, "annotations": boxes, "categories": categories} | more).encode(),
    )


def backslashes(folder):
    put(folder, "images/a.png", "images/b.png")
    coco(folder, "annotations.json", "images\\a.png", "images\\b.png")


def fiftyone(folder):
    put(folder, "data/a.png", "data/b.png")
    coco(folder, "labels.json", "a.png", "b.png")


def not_a_number(folder):
    put(folder, "a.png", "b.png")
    coco(folder, "annotations.json", "a.png", "b.png", info={"version": float("nan")})


def number_names(folder):
    put(folder, "a.png", "b.png")
    coco(folder, "annotations.json", "a.png", "b.png", categories=[{"id": 1, "name": 0}, {"id": 2, "name": 1}])


def accents(folder):
    put(folder, unicodedata.normalize("NFD", "é.png"), "b.png")
    coco(folder, "annotations.json", unicodedata.normalize("NFC", "é.png"), "b.png")


def parents(folder):
    put(folder, "images/a.png", "images/b.png")
    coco(folder, "annotations/instances.json", "../images/a.png", str(folder / "images/b.png"))


def utf16(folder):
    put(folder, "a.png", "b.png", "manifest.csv")
    (folder / "manifest.csv").write_text("file_name,label\na.png,cat\nb.png,dog\n", encoding="utf-16")


def string_view(folder):
    labels = pa.array(["cat", "dog"], pa.string_view())
    pq.write_table(pa.table({"image": [PNG, PNG], "label": labels}), folder / "a.parquet")


@pytest.mark.parametrize(
    ("lay", "labels"),
    [
        (backslashes, ["cat", "dog"]),
        (fiftyone, ["cat", "dog"]),
        (not_a_number, ["cat", "dog"]),
        (number_names, ["0", "1"]),
        (accents, ["cat", "dog"]),
        (parents, ["cat", "dog"]),
        (utf16, ["cat", "dog"]),
        (string_view, ["cat", "dog"]),
    ],
)
async def test_images_are_found_with_their_labels(client, root, lay, labels):
    folder = root / "case"
    folder.mkdir()
    lay(folder)
    answer = await client.post("/datasets", json={"name": "case", "root": str(folder)})
    assert answer.status_code == 201, answer.text
    samples = f"/datasets/{answer.json()['id']}/samples"
    items = (await client.get(samples)).json()["items"]
    assert [item["label"] for item in items] == labels
    for item in items:
        assert (await client.get(f"{samples}/{item['id']}/image")).content == PNG


def same_ids(folder):
    put(folder, "a.png", "b.png")
    images = [{"id": 7, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}]
    put(folder, "annotations.json", data=json.dumps({"images": images, "annotations": [], "categories": []}).encode())


def splits(folder):
    for split in ("train", "valid", "test"):
        put(folder, f"{split}/a.png")
        coco(folder, f"{split}/_annotations.coco.json", "a.png", categories=CATEGORIES[:1])


def base64_text(folder):
    pq.write_table(pa.table({"image": ["iVBORw0KGgo" * 9], "label": ["cat"]}), folder / "a.parquet")


def links_alone(folder):
    put(folder.parent / "elsewhere", "a.png")
    (folder / "cats").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("lay", "said"),
    [(same_ids, "7"), (splits, "train/_annotations.coco.json"), (base64_text, "image"), (links_alone, "cats/")],
)
async def test_what_cannot_be_meant_is_refused_with_what_is_in_the_way(client, root, lay, said):
    folder = root / "case"
    folder.mkdir()
    lay(folder)
    answer = await client.post("/datasets", json={"name": "case", "root": str(folder)})
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]


def most_are_absent(folder):
    put(folder, "11.png", "12.png")
    names = [f"{number}.png" for number in range(1, 13)]
    put(folder, "manifest.csv", data="\n".join(["file_name", *names]).encode())


def a_column_of_another_name(folder):
    put(folder, "a.png")
    put(folder, "manifest.csv", data=b"colour;label\na.png;cat\n")


def coco_of_another_name(folder):
    put(folder, "images/a.png")
    coco(folder, "annotations/parent.json", "../images/a.png")
    put(folder, "annotations/settings.json", data=b'{"images": 3}')


def linked_class(folder):
    links_alone(folder)
    put(folder, "dogs/b.png")


@pytest.mark.parametrize(
    ("lay", "count", "said"),
    [
        (most_are_absent, 12, "10 of the 12 named files are not there"),
        (a_column_of_another_name, 1, "manifest.csv"),
        (linked_class, 1, "cats/"),
        (coco_of_another_name, 1, "'annotations/parent.json' begins like COCO and was not read"),
    ],
)
async def test_what_is_left_out_is_told_and_stays_told(client, root, lay, count, said):
    folder = root / "case"
    folder.mkdir()
    lay(folder)
    answer = await client.post("/datasets", json={"name": "case", "root": str(folder)})
    assert answer.status_code == 201, answer.text
    kept = (await client.get(f"/datasets/{answer.json()['id']}")).json()
    assert kept["sample_count"] == count
    assert any(said in notice for notice in kept["notices"]), kept["notices"]


ODD_NAMES = ["a#b.png", "a?b.png", "a%b.png", "a%20b.png", "😀.png", "a\nb.png", "a b+c.png"]


async def test_files_of_any_name_are_served_under_it(client, root):
    put(root / "odd", *ODD_NAMES)
    (root / "odd" / "loop").symlink_to(root / "odd")
    dataset = (await client.post("/datasets", json={"name": "odd", "root": str(root / "odd")})).json()
    items = (await client.get(f"/datasets/{dataset['id']}/samples")).json()["items"]
    assert {item["file_name"] for item in items} == set(ODD_NAMES)
    points = f"/datasets/{dataset['id']}/samples"
    for item in items:
        url = f"{points}/{''.join(f'%{byte:02X}' for byte in item['id'].encode())}/thumbnail"
        assert (await client.get(url)).status_code == 200, item


def long_profile():
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (200, 30, 30)).save(buffer, "PNG", icc_profile=b"x" * (3 << 20))
    return buffer.getvalue()


def empty_fourth_byte():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).convert("RGBA").save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 10)
    data[start + 3 :: 4] = bytes(len(data[start + 3 :: 4]))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        pytest.param(long_profile(), (200, 30, 30), id="PNG with a long profile"),
        pytest.param(empty_fourth_byte(), (200, 30, 30), id="BMP with an empty fourth byte"),
        pytest.param(HEIC, (250, 250, 250), id="HEIC"),
    ],
)
async def test_the_picture_is_seen_as_its_writer_meant_it(client, root, data, colour):
    put(root / "one", "a.bin.png", data=data)
    dataset = (await client.post("/datasets", json={"name": "one", "root": str(root / "one")})).json()
    answer = await client.get(f"/datasets/{dataset['id']}/samples/a.bin.png/thumbnail")
    with Image.open(io.BytesIO(answer.content)) as seen:
        found = seen.convert("RGB").getpixel((3, 3))
    assert max(abs(a - b) for a, b in zip(found, colour, strict=True)) < 12
