"""Several sets a dataset over HTTP: `model` chooses on every route that reads one, and no two of them meet."""

import io
from dataclasses import replace

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from serve_app.api import create_app, schemas
from serve_app.search.searcher import LocalSearcher
from serve_app.store import filtering
from tests.fakes import FakeEmbedder, FakeModel
from tests.unit.api import work
from tests.unit.api.conftest import BASE_URL
from tests.unit.api.test_graph import make as make_graph
from tests.unit.api.test_imports import commit

DINO, SIGLIP = "dinov2-base", "siglip2-base"


class BackwardModel(FakeModel):
    """Another model of the same dimension: it reads its input from the end."""

    def vector(self, image):
        return super().vector(image[::-1])


class Models(FakeEmbedder):
    """Embeds with two models; `asked` has the name of the model of each call."""

    def __init__(self):
        dino = FakeModel(DINO, 768, "space-dino")
        self.by_name = {DINO: dino, SIGLIP: BackwardModel(SIGLIP, 768, "space-siglip", no_text="")}
        self.asked = []
        super().__init__(dino)

    async def describe(self, model):
        return self.by_name[model].card

    async def embed_images(self, model, images):
        self.asked.append(model)
        self.model = self.by_name[model]
        return await super().embed_images(model, images)

    async def embed_texts(self, model, texts):
        self.asked.append(model)
        self.model = self.by_name[model]
        return await super().embed_texts(model, texts)


@pytest.fixture
async def services(services):
    return replace(services, embedder=Models())


async def generate(client, services, dataset, model):
    """Embed with a model to the end."""
    begun = await client.post(f"/datasets/{dataset['id']}/embeddings/generate", json={"model_name": model})
    assert begun.status_code == 202, begun.text
    services.embedder.model = services.embedder.by_name[model]
    return await work.embed(services)


@pytest.fixture
async def both(client, services, dataset):
    """`flowers` with a set of DINOv2, and then one of SigLIP."""
    for model in (DINO, SIGLIP):
        await generate(client, services, dataset, model)
    return dataset


async def status(client, dataset, **params):
    return (await client.get(f"/datasets/{dataset['id']}/embeddings/status", params=params)).json()


async def questions(client, dataset, query, **params):
    """What every route that reads vectors answers about a dataset."""
    path = f"/datasets/{dataset['id']}"
    found = {}
    for tail in ("similarity/rose/a.png", "duplicates?threshold=0.01", "outliers?k=1", "diverse?n=3"):
        address = httpx.URL(f"{path}/{tail}").copy_merge_params(params)
        found[tail] = await client.get(address)
    found["search"] = await client.post(f"{path}/search", files={"file": ("q.png", query, "image/png")}, params=params)
    assert {answer.status_code for answer in found.values()} == {200}, found
    exported = await client.get(f"{path}/embeddings/export", params=params)
    rows = pq.read_table(io.BytesIO(exported.content))
    csv = await client.get(f"{path}/export", params={"with_vectors": "true", **params})
    return {name: answer.json() for name, answer in found.items()} | {"export": rows.to_pydict(), "csv": csv.text}


async def test_the_sets_of_two_models_never_meet_in_one_answer(client, services, both, root):
    query = (root / "flowers" / "tulip" / "c.png").read_bytes()
    alone = {}
    for model in (DINO, SIGLIP):
        only = {"name": f"{model} alone", "root": str(root / "flowers")}
        dataset = (await client.post("/datasets", json=only)).json()
        await generate(client, services, dataset, model)
        alone[model] = await questions(client, dataset, query)
    assert alone[DINO]["search"] != alone[SIGLIP]["search"]
    for model in (DINO, SIGLIP):
        services.embedder.asked.clear()
        assert await questions(client, both, query, model=model) == alone[model]
        assert services.embedder.asked == [model]
        assert alone[model]["search"]["items"][0]["score"] == pytest.approx(1)
    assert await questions(client, both, query) == alone[SIGLIP]


async def test_a_search_whose_set_has_gone_over_to_another_space_meanwhile_is_refused(client, services, both, root):
    services.embedder.by_name[DINO] = FakeModel(DINO, 768, "space-siglip")  # claims the space of the other set
    query = {"file": ("q.png", (root / "flowers" / "rose" / "a.png").read_bytes(), "image/png")}
    answer = await client.post(f"/datasets/{both['id']}/search", files=query, params={"model": DINO})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_words_go_to_the_tower_of_the_chosen_set(client, services, both):
    path = f"/datasets/{both['id']}"
    for params in ({"model": SIGLIP}, {}):
        services.embedder.asked.clear()
        assert (await client.post(f"{path}/search", json={"text": "a rose"}, params=params)).status_code == 200
        assert services.embedder.asked == [SIGLIP]
    phrases = {"phrases": ["a rose", "a tulip"]}
    assert (await client.post(f"{path}/labels", json=phrases, params={"model": SIGLIP})).json()["samples"] == 4
    for tail, body in (("search", {"text": "a rose"}), ("labels", phrases)):
        refused = await client.post(f"{path}/{tail}", json=body, params={"model": DINO})
        assert (refused.status_code, refused.json()["code"]) == (409, "no_text_tower")


async def test_status_lists_the_sets_and_speaks_of_the_chosen_one(client, both):
    now = await status(client, both)
    assert [(found["model_name"], found["embedding_count"], found["has_reduction"]) for found in now["sets"]] == [
        (SIGLIP, 4, False),
        (DINO, 4, False),
    ]
    assert (now["model_name"], now["space_key"]) == (SIGLIP, "space-siglip")
    chosen = await status(client, both, model=DINO)
    assert (chosen["model_name"], chosen["space_key"], chosen["sets"]) == (DINO, "space-dino", now["sets"])
    names = {model["id"].partition("@")[0] for model in (await client.get("/v1/models")).json()["data"]}
    assert {DINO, SIGLIP} <= names


async def test_a_map_is_of_the_chosen_set_and_so_are_its_regions(client, services, both):
    path = f"/datasets/{both['id']}"
    begun = await client.post(f"{path}/embeddings/reduce", params={"model": DINO})
    assert begun.status_code == 202
    assert (await client.get(begun.headers["location"])).json()["model_name"] == DINO
    await work.reduce(services)
    assert [(await status(client, both, model=model))["has_reduction"] for model in (DINO, SIGLIP)] == [True, False]
    points = (await client.get(f"{path}/embeddings/coordinates", params={"model": DINO})).json()
    assert [(point["x"], point["y"]) for point in points] == [(i, -i) for i in range(4)]
    assert (await client.get(f"{path}/embeddings/coordinates")).json() == []

    corners = [[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]
    region = "inside(-0.5, -0.5, 0.5, -0.5, 0.5, 0.5, -0.5, 0.5)"
    for tail in (
        "samples",
        "embeddings/coordinates",
        "diverse",
        "similarity/tulip/c.png",
        "export",
        "embeddings/export",
    ):
        inside = await client.get(f"{path}/{tail}", params={"where": region, "model": DINO})
        assert (inside.status_code, points[0]["sampleId"].encode() in inside.content) == (200, True), tail
        refused = await client.get(f"{path}/{tail}", params={"where": region})
        assert refused.json()["code"] == "invalid_filter", tail
    paged = {"where": "inside(-9, -9, 9, -9, 9, 9, -9, 9)", "model": DINO, "limit": 2}
    first = (await client.get(f"{path}/samples", params=paged)).json()
    rest = await client.get(f"{path}/samples", params=paged | {"cursor": first["next_cursor"]})
    assert (rest.status_code, len(rest.json()["items"])) == (200, 2), rest.text
    for choice in ({"polygon": corners}, {"where": region}):
        changed = await client.post(f"{path}/tags/near", json=choice, params={"model": DINO})
        assert changed.json()["selected"] == 1, choice
    assert (await client.post(f"{path}/tags/near", json={"polygon": corners})).json()["code"] == "no_embeddings"
    assert (
        await client.request("DELETE", f"{path}/tags/near", json={"polygon": corners}, params={"model": DINO})
    ).json()["changed"] == 1


async def test_a_graph_is_of_the_chosen_set(settings, services, client, both):
    searcher = LocalSearcher(services.writer, settings.sets_path, max_pairwise_rows=3)
    app = create_app(settings, lambda: replace(services, searcher=searcher))
    path = f"/datasets/{both['id']}"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE_URL) as large:
        begun = await large.post(f"{path}/graph", params={"model": DINO})
        assert begun.status_code == 202
        assert (await make_graph(services)).status == "complete"
        for _ in range(2):
            assert (await large.get(f"{path}/outliers?k=3", params={"model": DINO})).status_code == 200
            assert (await large.get(f"{path}/outliers?k=3")).json()["code"] == "graph_needed"
            await generate(client, services, both, SIGLIP)


async def test_findings_are_about_the_chosen_set(client, services, both):
    path = f"/datasets/{both['id']}"
    answers = {}
    for model in (DINO, SIGLIP):
        for tail in (
            "leaks?column=file_name&threshold=0.001",
            "duplicates?keep=first&threshold=0.001",
            "clusters?min_size=2",
            "mislabeled",
            "diverse?n=4",
        ):
            asked = await client.get(httpx.URL(f"{path}/{tail}").copy_merge_params({"model": model}))
            assert asked.status_code == 200, asked.text
            answers[tail, model] = asked.json()
            missing = await client.get(httpx.URL(f"{path}/{tail}").copy_merge_params({"model": "unheard of"}))
            assert missing.json()["code"] == "no_embeddings", tail
    for tail in {tail for tail, _ in answers} - {"clusters?min_size=2", "mislabeled"}:
        assert answers[tail, DINO] != answers[tail, SIGLIP], tail
        assert (await client.get(f"{path}/{tail}")).json() == answers[tail, SIGLIP], tail


async def test_a_set_is_deleted_with_its_files_and_the_other_one_stays(client, services, both):
    path = f"/datasets/{both['id']}/embeddings"
    for model in (DINO, SIGLIP):
        await client.get(f"/datasets/{both['id']}/diverse", params={"model": model})
    files = services.settings.sets_path / both["id"]
    assert len(list(files.iterdir())) == 2
    for model, code, why in ((None, 422, "invalid_request"), ("unheard of", 404, "not_found")):
        refused = await client.delete(path, params={"model": model} if model else {})
        assert (refused.status_code, refused.json()["code"]) == (code, why)
    job = (await client.post(f"{path}/reduce")).json()["job_id"]
    refused = await client.delete(path, params={"model": SIGLIP})
    assert (refused.status_code, refused.json()["job_id"]) == (409, job)
    await client.post(f"{path}/cancel")

    assert (await client.delete(path, params={"model": SIGLIP})).status_code == 204
    assert (await client.delete(path, params={"model": SIGLIP})).status_code == 404
    now = await status(client, both)
    assert (now["model_name"], [found["model_name"] for found in now["sets"]]) == (DINO, [DINO])
    assert len(list(files.iterdir())) == 1
    gone = await client.get(f"/datasets/{both['id']}/diverse", params={"model": SIGLIP})
    assert (gone.status_code, gone.json()["code"]) == (400, "no_embeddings")
    assert DINO in gone.json()["detail"]
    assert (await client.get(f"/datasets/{both['id']}/diverse")).status_code == 200


async def test_imported_vectors_become_a_set_beside_the_others(client, services, both):
    path = f"/datasets/{both['id']}/embeddings"
    exported = await client.get(f"{path}/export", params={"model": DINO})
    headers = {"Content-Type": "application/vnd.apache.parquet"}
    for model, expected in (("mine", ["mine", SIGLIP, DINO]), (SIGLIP, [SIGLIP, "mine", DINO])):
        params = {"model_name": model, "space_key": "mine/1"}
        sent = await client.post(f"{path}/import", content=exported.content, headers=headers, params=params)
        assert sent.status_code == 202, sent.text
        await commit(services)
        assert [found["model_name"] for found in (await status(client, both))["sets"]] == expected
    again = pq.read_table(io.BytesIO((await client.get(f"{path}/export", params={"model": "mine"})).content))
    first = pq.read_table(io.BytesIO(exported.content))
    assert np.array_equal(again["vector"].to_pylist(), first["vector"].to_pylist())


async def test_the_longest_filter_and_the_longest_name_of_a_model_fit_into_one_request(client, both):
    """The HTTP parser takes 64 KiB of request line and headers; a character is twelve bytes at most."""
    params = {"where": "\U0001f98a" * filtering.MAX_CHARACTERS, "model": "\U0001f98a" * schemas.MAX_MODEL_NAME}
    address = httpx.URL(f"{BASE_URL}/datasets/{both['id']}/embeddings/coordinates").copy_merge_params(params)
    assert len(address.raw_path) < 2**16 - 1500
    assert (await client.get(address)).json()["code"] == "no_embeddings"
    params["model"] += "x"
    refused = await client.get(f"/datasets/{both['id']}/diverse", params=params)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
