"""Findings over HTTP, each on a dataset with faults that a test has planted: what is found, why, and as which file."""

import io
import os
from dataclasses import replace

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from serve_app.api import create_app
from serve_app.errors import StoreUnavailable
from serve_app.jobs.graph_job import graph_job
from serve_app.search.searcher import LocalSearcher
from serve_app.search.set_files import SetFiles
from serve_app.services import Embedded
from serve_app.store.columns import Columns
from serve_app.store.datasets import Datasets
from tests.live_service import InProcess
from tests.unit.api import work
from tests.unit.api.conftest import BASE_URL, png

DIMENSION = 768


def at(*degrees):
    """A direction in the plane of the first two axes, for each angle."""
    vectors = np.zeros((len(degrees), DIMENSION), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return vectors


@pytest.fixture
def plant(client, services, root):
    """A function that registers a folder of images, {name: (vector, size)}, and embeds it to these vectors."""

    async def planted(images, copies=()):
        folder = root / "planted"
        vectors = {}
        for n, (name, (vector, size)) in enumerate(images.items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = png((n % 256, n // 256, 9), size)
            vectors[data] = vector
            path.write_bytes(data)
        for copy, original in copies:
            (folder / copy).parent.mkdir(parents=True, exist_ok=True)
            (folder / copy).write_bytes((folder / original).read_bytes())
        services.embedder.model.vector = vectors.__getitem__
        dataset = (await client.post("/datasets", json={"name": "planted", "root": str(folder)})).json()
        await client.post(f"/datasets/{dataset['id']}/embeddings/generate")
        await work.embed(services)
        return f"/datasets/{dataset['id']}"

    return planted


async def found(client, path, **params):
    answer = await client.get(path, params=params or None)
    assert answer.status_code == 200, answer.text
    return answer.json()


def cosine(degrees):
    return float(np.cos(np.radians(degrees)))


async def test_duplicates_that_chain_keep_one_image_of_each_end(client, plant):
    """Four images 10° apart: linked in a chain, but only neighbours are twins."""
    sizes = [(8, 8), (9, 9), (10, 10), (8, 9)]
    images = {f"{n}.png": (vector, sizes[n]) for n, vector in enumerate(at(0, 10, 20, 30))}
    path = await plant(images)
    params = {"threshold": cosine(11)}
    [chain] = (await found(client, f"{path}/duplicates", **params))["groups"]
    assert len(chain) == 4
    answer = await found(client, f"{path}/duplicates", keep="first", **params)
    assert [[member["file_name"] for member in group] for group in answer["groups"]] == [
        ["0.png", "1.png"],
        ["2.png", "3.png"],
    ]
    [group] = (await found(client, f"{path}/duplicates", keep="largest", **params))["groups"]
    assert [(m["file_name"], m["action"], m["reason"]) for m in group] == [
        ("2.png", "keep", "the largest of 3"),
        ("1.png", "drop", "0.985 like 2.png, which has more pixels"),
        ("3.png", "drop", "0.985 like 2.png, which has more pixels"),
    ]
    assert [m["score"] for m in group] == pytest.approx([cosine(10)] * 3)


async def test_leaks_are_twins_of_different_values_the_exact_ones_first(client, plant):
    angles = at(0, 1, 3, 90, 92, 180)
    names = ["train/a.png", "test/a.png", "train/b.png", "train/c.png", "val/c.png", "test/alone.png"]
    path = await plant(
        {name: (vector, (8, 8)) for name, vector in zip(names, angles, strict=True)},
        copies=[("test/copy.png", "train/c.png"), ("train/copy of c.png", "train/c.png")],
    )
    answer = await found(client, f"{path}/leaks", column="split", threshold=cosine(4))
    pairs = [({i["file_name"], i["twin"]["file_name"]}, i["exact"]) for i in answer["items"]]
    assert pairs[:2] == [
        ({"test/copy.png", "train/c.png"}, True),
        ({"train/copy of c.png", "test/copy.png"}, True),
    ]
    assert pairs[2:] == [
        ({"train/a.png", "test/a.png"}, False),
        ({"train/b.png", "test/a.png"}, False),
        ({"val/c.png", "test/copy.png"}, False),
    ]
    assert all(i["value"] != i["twin"]["value"] and i["file_name"].startswith(i["value"]) for i in answer["items"])
    sides = [side for i in answer["items"] for side in (i, i["twin"])]
    assert all(side["label"] == side["file_name"].split("/")[0] for side in sides)
    assert (answer["column"], answer["incomplete"]) == ("split", 0)
    only = await found(client, f"{path}/leaks", where="split <> 'test'", threshold=cosine(4))
    assert [{i["value"], i["twin"]["value"]} for i in only["items"]] == [{"train", "val"}] * 2


async def test_a_column_that_is_not_there_is_the_mistake_that_it_is_in_a_filter(client, plant):
    path = await plant({"a.png": (at(0)[0], (8, 8))})
    wrong = await client.get(f"{path}/leaks", params={"column": "splitt"})
    same = await client.get(f"{path}/leaks", params={"where": "splitt IS NULL"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_filter")
    assert wrong.json()["detail"] == same.json()["detail"]
    for name in ("no such", 'a"b', "1'; --", "a.b", "select"):
        for question, column in (("leaks", "column"), ("diverse", "balance")):
            answer = await client.get(f"{path}/{question}", params={column: name})
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_filter"), name


def blobs(n_each, n_centres, spread):
    """(n_centres, n_each, D) directions around orthogonal centres."""
    random = np.random.default_rng(0)
    noise = random.standard_normal((n_centres, n_each, DIMENSION)).astype(np.float32)
    return np.eye(n_centres, DIMENSION, dtype=np.float32)[:, None] + spread * noise


async def test_flipped_labels_are_found_with_what_they_were(client, plant):
    images = {f"{'abc'[c]}/{n}.png": (v, (8, 8)) for c, of in enumerate(blobs(12, 3, 0.02)) for n, v in enumerate(of)}
    images["b/was a.png"] = (blobs(13, 3, 0.02)[0][12], (8, 8))
    images["c/was b.png"] = (blobs(13, 3, 0.02)[1][12], (8, 8))
    images["unlabeled.png"] = (blobs(13, 3, 0.02)[1][11], (8, 8))
    path = await plant(images)
    answer = await found(client, f"{path}/mislabeled", limit=2)
    assert {(i["file_name"], i["label"], i["suggested_label"]) for i in answer["items"]} == {
        ("b/was a.png", "b", "a"),
        ("c/was b.png", "c", "b"),
    }
    assert answer["items"][0]["score"] >= answer["items"][1]["score"] > 0
    assert "ridge" in answer["method"]
    assert (await found(client, f"{path}/mislabeled", where="label = 'b'"))["items"] == []


async def test_clusters_are_dense_groups_with_their_medoid_and_label_and_the_rest_is_noise(client, plant):
    groups = blobs(20, 2, spread=0.02)
    images = {f"cat/{n}.png": (v, (8, 8)) for n, v in enumerate(groups[0])}
    images |= {f"dog/{n}.png": (v, (8, 8)) for n, v in enumerate(groups[1][:15])}
    images |= {f"noise/{n}.png": (v, (8, 8)) for n, v in enumerate(np.eye(4, DIMENSION, 9, dtype=np.float32))}
    path = await plant(images)
    answer = await found(client, f"{path}/clusters", min_size=10)
    assert [(i["cluster"], i["size"], i["label"], i["share"]) for i in answer["items"]] == [
        (0, 20, "cat", 1.0),
        (1, 15, "dog", 1.0),
    ]
    assert answer["noise"] == 4
    assert answer["items"][0]["medoid"]["file_name"].startswith("cat/")
    assert answer["items"][0]["medoid"]["label"] == "cat"
    put = await client.post(f"{path}/clusters", params={"min_size": 10, "column": "group"})
    assert (put.status_code, put.json()["column"], put.json()["items"]) == (200, "group", answer["items"])
    chosen = (await found(client, f"{path}/samples", where="\"group\" = '1'"))["items"]
    assert {sample["label"] for sample in chosen} == {"dog"}
    assert len(chosen) == 15
    refused = await client.post(f"{path}/clusters", params={"column": "label"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


class RefusesColumns:
    """A writer that is away whenever columns are put."""

    def __init__(self, writer):
        self._writer = writer

    async def ask(self, method, *args, **kwargs):
        if method is Columns.put:
            raise StoreUnavailable("the writer is away")
        return await self._writer.ask(method, *args, **kwargs)


async def test_a_column_of_clusters_goes_over_to_the_new_ones_at_once_or_not_at_all(client, plant, settings, services):
    groups = blobs(12, 2, spread=0.02)
    path = await plant({f"{n}.png": (v, (8, 8)) for n, v in enumerate(np.concatenate(groups))})
    assert (await client.post(f"{path}/clusters", params={"min_size": 10})).status_code == 200
    grouped = {"where": "cluster = '0' OR cluster = '1'"}
    assert len((await found(client, f"{path}/samples", **grouped))["items"]) == 24
    app = create_app(settings, lambda: replace(services, writer=RefusesColumns(services.writer)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as away:
        assert (await away.post(f"{path}/clusters", params={"min_size": 10})).status_code == 503
    assert len((await found(client, f"{path}/samples", **grouped))["items"]) == 24
    part = {"min_size": 5, "where": "file_name != '0.png' AND file_name != '20.png'"}
    changed = (await client.post(f"{path}/clusters", params=part)).json()["items"]
    sizes = sum(cluster["size"] for cluster in changed)
    assert 0 < sizes <= 22
    assert len((await found(client, f"{path}/samples", where="cluster IS NOT NULL"))["items"]) == sizes
    none = await client.post(f"{path}/clusters", params={"min_size": 1000})
    assert (none.status_code, none.json()["items"]) == (200, [])
    assert (await client.get(f"{path}/samples", params=grouped)).json()["code"] == "invalid_filter"


async def test_a_diverse_choice_keeps_away_from_what_is_labelled_and_balances_classes(client, plant):
    images = {f"many/{n}.png": (v, (8, 8)) for n, v in enumerate(at(*range(0, 60, 5)))}
    images |= {f"few/{n}.png": (v, (8, 8)) for n, v in enumerate(at(170, 180))}
    path = await plant(images)
    whole = [i["file_name"] for i in (await found(client, f"{path}/diverse", n=6))["items"]]
    balanced = (await found(client, f"{path}/diverse", n=6, balance="label"))["items"]
    assert [i["label"] for i in balanced] == ["many", "few", "many", "few", "many", "many"]
    assert whole != [i["file_name"] for i in balanced]
    labelled = "label = 'few' OR file_name = 'many/0.png'"
    away = (await found(client, f"{path}/diverse", n=20, labelled=labelled))["items"]
    assert away[0]["file_name"] == "many/11.png"  # 55° from the one side and 115° from the other
    assert len(away) == 11
    assert away[0]["score"] == pytest.approx(cosine(55), abs=1e-6)
    assert not {i["file_name"] for i in away} & {"few/0.png", "few/1.png", "many/0.png"}


@pytest.mark.parametrize(
    ("question", "columns", "n_rows"),
    [
        ("duplicates?threshold=0.98", ["group", "sample_id", "file_name", "label", "score"], 2),
        (
            "duplicates?threshold=0.98&keep=oldest",
            ["group", "sample_id", "file_name", "label", "score", "action", "reason"],
            2,
        ),
        (
            "leaks?threshold=0.98",
            ["sample_id", "file_name", "value", "twin_sample_id", "twin_file_name", "twin_value", "score", "exact"],
            1,
        ),
        ("mislabeled", ["sample_id", "file_name", "label", "suggested_label", "score"], None),
        ("clusters?min_size=2", ["sample_id", "file_name", "label", "cluster"], None),
        ("outliers?limit=3", ["sample_id", "file_name", "label", "score"], 3),
        ("diverse?n=2", ["sample_id", "file_name", "label", "score"], 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_each_finding_is_a_plan_as_csv_and_parquet(client, plant, question, columns, n_rows):
    names = ["train/a.png", "test/a, b.png", "test/c.png", "test/d.png"]
    path = await plant({name: (vector, (8, 8)) for name, vector in zip(names, at(0, 5, 90, 140), strict=True)})
    joined = f"{question}{'&' if '?' in question else '?'}format="
    text, table = [await client.get(f"{path}/{joined}{kind}") for kind in ("csv", "parquet")]
    assert (text.status_code, text.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert "attachment" in text.headers["content-disposition"]
    rows = pq.read_table(io.BytesIO(table.content))
    assert rows.column_names == columns
    assert n_rows in (None, len(rows))
    assert csv.read_csv(pa.py_buffer(text.content)).column("file_name").to_pylist() == rows["file_name"].to_pylist()


async def test_a_plan_of_twins_becomes_columns_to_filter_by(client, plant):
    path = await plant({f"{n}.png": (v, (8, 8)) for n, v in enumerate(at(0, 5, 90))})
    params = {"threshold": 0.98, "keep": "first", "format": "csv"}
    plan = await client.get(f"{path}/duplicates", params=params)
    put = await client.put(f"{path}/columns", content=plan.content, headers={"Content-Type": "text/csv"})
    assert put.status_code == 200, put.text
    dropped = (await found(client, f"{path}/samples", where="action = 'drop'"))["items"]
    assert [sample["file_name"] for sample in dropped] == ["1.png"]


@pytest.fixture
async def large(settings, services):
    """A client to which four images are many."""
    searcher = LocalSearcher(services.writer, settings.sets_path, max_pairwise_rows=3)
    app = create_app(settings, lambda: replace(services, searcher=searcher))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as client:
        yield client


async def test_a_large_set_answers_from_its_graph_what_a_small_one_answers_at_once(client, large, plant, services):
    names = ["train/a.png", "test/a.png", "train/b.png", "test/b.png", "train/c.png"]
    path = await plant({name: (vector, (8, 8)) for name, vector in zip(names, at(0, 5, 90, 95, 180), strict=True)})
    needing = ("duplicates?keep=largest&threshold=0.98", "leaks?threshold=0.98", "clusters?min_size=2")
    for question in needing:
        refused = await large.get(f"{path}/{question}")
        assert (refused.status_code, refused.json()["code"]) == (409, "graph_needed"), question
    await large.post(f"{path}/graph", json={"k": 15})
    claim = await work.claim(services)
    await graph_job(claim, services.writer, SetFiles(services.settings.sets_path, services.writer), InProcess())
    for question in (*needing, "mislabeled", "diverse?n=3&balance=label"):
        assert (await large.get(f"{path}/{question}")).json() == await found(client, f"{path}/{question}"), question


async def test_the_oldest_file_is_kept_where_files_have_ages(client, plant, root, services):
    path = await plant({f"{n}.png": (vector, (8, 8)) for n, vector in enumerate(at(0, 1, 2))})
    for n, time in enumerate((3000, 1000, 2000)):
        os.utime(root / "planted" / f"{n}.png", (time, time))
    await client.post(f"{path}/rescan")
    [group] = (await found(client, f"{path}/duplicates", keep="oldest"))["groups"]
    assert [member["file_name"] for member in group] == ["1.png", "2.png", "0.png"]
    assert group[1]["reason"] == "1.000 like 1.png, which is older"
    assert (await client.get(f"{path}/duplicates", params={"keep": "newest"})).status_code == 422
    scan = await services.writer.ask(Datasets.begin_scan)
    remote = {"name": "remote", "root": "s3://bucket/photos", "format": "folder", "annotations": None}
    dataset = await services.writer.ask(Datasets.register, scan, **remote)
    refused = await client.get(f"/datasets/{dataset.id}/duplicates", params={"keep": "oldest"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "behind a URL" in refused.json()["detail"]


PETS = {"a photo of a cat.": 0, "a photo of a dog.": 1, "a photo of a house.": 2}


@pytest.fixture
def worded(services, monkeypatch):
    """A text tower for which a sentence about pets lies on the axis of its cluster; returns the model's card."""
    vectors = np.eye(3, DIMENSION, dtype=np.float32)

    async def embed_texts(model, texts):
        return Embedded(services.embedder.model.card, [vectors[PETS[text]] for text in texts])

    monkeypatch.setattr(services.embedder, "embed_texts", embed_texts)


async def test_clusters_are_named_by_the_phrase_that_most_of_their_images_fit_best(client, plant, worded):
    groups = blobs(20, 2, spread=0.02)
    images = {f"x/{n}.png": (v, (8, 8)) for n, v in enumerate(np.concatenate([groups[0], groups[1][:15]]))}
    path = await plant(images)
    phrases = ["dog", "house", "cat"]
    answer = await found(client, f"{path}/clusters", min_size=10, phrases=phrases)
    named = [(i["size"], i["name"], i["name_share"], i["label"]) for i in answer["items"]]
    assert named == [(20, "cat", 1.0, "x"), (15, "dog", 1.0, "x")]
    assert "zero-shot" in answer["method"]
    rows = await client.get(f"{path}/clusters", params={"min_size": 10, "phrases": phrases, "format": "csv"})
    table = csv.read_csv(pa.py_buffer(rows.content))
    assert table.column_names == ["sample_id", "file_name", "label", "cluster", "name"]
    assert set(zip(*table.select(["cluster", "name"]).to_pydict().values(), strict=True)) == {(0, "cat"), (1, "dog")}
    put = await client.post(f"{path}/clusters", params={"min_size": 10, "phrases": phrases})
    assert put.json()["items"] == answer["items"]
    plain = await found(client, f"{path}/clusters", min_size=10)
    assert {(i["name"], i["name_share"]) for i in plain["items"]} == {(None, None)}


async def test_names_of_clusters_need_two_phrases_and_a_text_tower(client, plant, services, worded, monkeypatch):
    path = await plant({f"{n}.png": (v, (8, 8)) for n, v in enumerate(at(0, 5, 90, 140))})
    for phrases in (["cat"], ["cat", "cat"], ["cat", " "]):
        assert (await client.get(f"{path}/clusters", params={"phrases": phrases})).status_code == 422, phrases
    monkeypatch.undo()
    refused = await client.get(f"{path}/clusters", params={"phrases": ["cat", "dog"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_text_tower")


async def test_a_phrase_that_is_too_long_to_name_clusters_is_refused(client, plant, worded, services, monkeypatch):
    path = await plant({f"{n}.png": (v, (8, 8)) for n, v in enumerate(at(0, 5, 90, 140))})
    embed = services.embedder.embed_texts

    async def cutting(model, texts):
        return replace(await embed(model, texts), cut=(1,))

    monkeypatch.setattr(services.embedder, "embed_texts", cutting)
    refused = await client.get(f"{path}/clusters", params={"phrases": ["cat", "dog"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert refused.json()["detail"] == "'dog' is longer than the model takes; shorten it"


async def test_a_plan_of_named_clusters_has_the_column_of_names_where_there_is_no_cluster(client, plant, worded):
    path = await plant({f"{n}.png": (v, (8, 8)) for n, v in enumerate(at(0, 5, 90, 140))})
    params = {"phrases": ["cat", "dog"], "min_size": 10, "format": "parquet"}
    answer = await client.get(f"{path}/clusters", params=params)
    table = pq.read_table(pa.py_buffer(answer.content))
    assert (table.column_names, len(table)) == (["sample_id", "file_name", "label", "cluster", "name"], 0)
