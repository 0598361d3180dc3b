"""Columns of a dataset's source: manifests, Parquet files with images, COCO; over HTTP, on the real store."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.store.vectors import Vectors
from tests.unit.api import work
from tests.unit.api.conftest import png
from tests.unit.api.test_columns import CSV, chosen, listed, put


@pytest.fixture
def photos(root):
    """A folder with three images, in which tests write annotation files."""
    folder = root / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png((80 * number, 0, 0)))
    return folder


async def register(client, root, name="photos", **options):
    answer = await client.post("/datasets", json={"name": name, "root": str(root), **options})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def types(client, dataset):
    found = await listed(client, dataset)
    return {name: column["type"] for name, column in found.items() if column["origin"] == "source"}


async def test_every_further_column_of_a_csv_becomes_a_column_of_the_type_of_its_texts(client, photos):
    (photos / "m.csv").write_text(
        "file_name,label,split,width,score,ok,taken,zip,note\n"
        "0.png,a,train,640,0.5,true,2026-01-02 03:04:05,01234,NA\n"
        "1.png,b,test,80,NA,False,2026-01-03,99999,x y\n"
        "2.png,b,test,,1e3,,,10115,\n"
    )
    dataset = await register(client, photos / "m.csv")
    assert dataset["notices"] == []
    assert await types(client, dataset) == {
        **{"split": "text", "width": "number", "score": "number", "ok": "boolean", "taken": "time"},
        **{"zip": "text", "note": "text"},
    }
    assert await chosen(client, dataset, "split = 'test' AND width < 100") == ["1.png"]
    assert await chosen(client, dataset, "zip = '01234' AND taken > '2026-01-02' AND note = 'NA'") == ["0.png"]
    assert await chosen(client, dataset, "score = 1000 AND ok IS NULL") == ["2.png"]


async def test_a_second_column_of_a_name_is_told_once(client, photos):
    rows = [{"file_name": f"{number}.png", "w": 1, " w": 2} for number in range(3)]
    (photos / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = await register(client, photos / "m.jsonl")
    assert dataset["notices"].count("left out: a second column 'w'") == 1
    assert await chosen(client, dataset, "w = 1") == ["0.png", "1.png", "2.png"]


async def test_values_of_json_lines_keep_their_types_and_mixed_ones_become_texts_with_a_notice(client, photos):
    rows = [
        {"file_name": "0.png", "n": 1, "mixed": 1, "code": "007", "taken": "2026-01-02T03:04:05Z", "boxes": [1, 2]},
        {"file_name": "1.png", "n": 2.5, "mixed": "x", "code": "12", "x": 3, "N": 1},
        {"file_name": "2.png", "mixed": True, "long": "y" * 5000, "huge": 2**60},
    ]
    (photos / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    dataset = await register(client, photos / "m.jsonl")
    assert await types(client, dataset) == {
        "n": "number",
        "mixed": "text",
        "code": "text",
        "taken": "time",
        "huge": "text",
    }
    assert await chosen(client, dataset, "mixed = '1' OR mixed = 'true'") == ["0.png", "2.png"]
    assert await chosen(client, dataset, f"huge = '{2**60}'") == ["2.png"]
    told = " ".join(dataset["notices"])
    for part in (
        "'mixed' are of several types",
        "'boxes' that are lists",
        "'long' that are longer than 4,096",
    ):
        assert part in told
    assert "'x', whose values follow from the listing" in told
    assert "'N', because another has the name" in told


async def test_a_parquet_with_images_has_its_further_columns_typed_and_classes_by_name(client, root):
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
        "breed": {"_type": "ClassLabel", "names": ["pug", "tabby"]},
    }
    table = pa.table(
        {
            "image": [{"bytes": png((9 * n, 0, 0)), "path": None} for n in range(3)],
            "label": [0, 1, 1],
            "breed": [1, 0, None],
            "caption": pa.array(["a cat", "a dog", "z" * 5000]).dictionary_encode(),
            "price": pa.array([1, 2, None], pa.decimal128(9, 2)),
            "taken": pa.array([0, 10**9, None], pa.timestamp("ns", "Europe/Berlin")),
            "objects": [[1], [2], [3]],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, root / "train.parquet", row_group_size=2)
    dataset = await register(client, root / "train.parquet", "train")
    assert await types(client, dataset) == {"breed": "text", "caption": "text", "price": "number", "taken": "time"}
    assert await chosen(client, dataset, "breed = 'tabby' AND taken = '1970-01-01'") == ["train.parquet/0"]
    assert await chosen(client, dataset, "price = 2 AND caption = 'a dog'") == ["train.parquet/1"]
    told = " ".join(dataset["notices"])
    assert "left out: 'objects', columns of lists" in told
    assert "'caption' that are longer than 4,096 characters" in told


def coco(images, annotations=()):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "fox"}]
    return json.dumps({"images": images, "annotations": list(annotations), "categories": categories})


async def test_coco_gives_its_image_fields_and_the_number_of_annotations_by_category(client, photos):
    images = [
        {"id": n, "file_name": f"{n}.png", "license": n, "width": 640, "date_captured": "2013-11-14 17:02:52"}
        for n in range(3)
    ]
    pairs = [(0, 1), (0, 1), (0, 2), (1, 2)]
    (photos / "c.json").write_text(coco(images, [{"image_id": i, "category_id": c, "area": 1} for i, c in pairs]))
    dataset = await register(client, photos, format="coco", annotations=str(photos / "c.json"))
    assert await types(client, dataset) == {
        **{"license": "number", "width": "number", "date_captured": "time"},
        **{"n_cat": "number", "n_dog": "number"},
    }
    assert await chosen(
        client, dataset, "n_cat = 2 AND n_dog = 1 AND license = 0 AND date_captured < '2014-01-01'"
    ) == ["0"]
    assert await chosen(client, dataset, "n_cat = 0") == ["1", "2"]


async def test_a_rescan_updates_the_columns_of_the_source_and_leaves_those_that_a_client_put(client, photos):
    manifest = photos / "m.csv"
    manifest.write_text("file_name,width,old\n0.png,1,a\n1.png,2,b\n")
    dataset = await register(client, manifest)
    await put(client, dataset, b"file_name,width,mine\n0.png,100,x\n", CSV)
    manifest.write_text("file_name,width,new\n0.png,7,2026-01-01\n1.png,8,\n2.png,9,2026-01-02\n")
    change = (await client.post(f"/datasets/{dataset['id']}/rescan")).json()
    assert (change["added"], change["removed"]) == (1, 0)
    assert "the source's column 'width', because a client put" in " ".join(change["notices"])
    found = await listed(client, dataset)
    origins = {name: column["origin"] for name, column in found.items() if column["is_stored"]}
    assert origins == {"width": "put", "mine": "put", "new": "source"}
    assert (found["width"]["max"], found["new"]["type"], found["new"]["count"]) == (100, "time", 2)

    await client.delete(f"/datasets/{dataset['id']}/columns/width")
    change = (await client.post(f"/datasets/{dataset['id']}/rescan")).json()
    assert "client put" not in " ".join(change["notices"])
    assert (await listed(client, dataset))["width"]["max"] == 9


async def test_a_rescan_of_an_unchanged_source_changes_no_column(client, photos):
    (photos / "m.csv").write_text("file_name,width\n0.png,1\n1.png,2\n")
    dataset = await register(client, photos / "m.csv")
    before = await listed(client, dataset)
    await client.post(f"/datasets/{dataset['id']}/rescan")
    assert await listed(client, dataset) == before


async def embed(client, services, dataset):
    """Run an embed job by hand, whose stamps say what was read."""
    await client.post(f"/datasets/{dataset['id']}/embeddings/generate", json={"force": True})
    claimed = await work.begin(services)
    await work.stage(services, claimed)
    return await services.writer.ask(Vectors.commit, claimed.job.id, claimed.attempt)


async def test_a_job_adds_width_height_and_format_of_the_images_that_it_read(client, services, dataset):
    await embed(client, services, dataset)
    found = await listed(client, dataset)
    assert {name: (found[name]["origin"], found[name]["count"]) for name in ("width", "height", "format")} == {
        **{"width": ("read", 4), "height": ("read", 4), "format": ("read", 4)},
    }
    assert (found["width"]["min"], found["height"]["max"], found["format"]["values"][0]["value"]) == (32, 24, "png")
    assert await chosen(client, dataset, "format IS NULL") == ["tulip/broken.png"]


async def test_what_a_client_or_the_source_says_of_a_width_stays_when_images_are_read(client, services, photos):
    (photos / "m.csv").write_text("file_name,width\n0.png,1\n1.png,2\n")
    dataset = await register(client, photos / "m.csv")
    await put(client, dataset, b"file_name,Format\n0.png,mine\n", CSV)
    await embed(client, services, dataset)
    found = await listed(client, dataset)
    assert (found["width"]["max"], found["Format"]["values"][0]["value"], found["height"]["max"]) == (2, "mine", 24)
    assert "format" not in found


async def test_what_a_cancelled_job_read_of_the_images_stays(client, services, dataset):
    await client.post(f"/datasets/{dataset['id']}/embeddings/generate")
    claimed = await work.begin(services)
    await work.stage(services, claimed)
    await client.post(f"/datasets/{dataset['id']}/embeddings/cancel")
    assert (await listed(client, dataset))["width"]["count"] == 4
