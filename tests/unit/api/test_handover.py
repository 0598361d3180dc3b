"""Export for other tools over HTTP: CSV, COCO, YOLO's list and plain lists, on the real store."""

import csv
import io
import json

import pytest

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
