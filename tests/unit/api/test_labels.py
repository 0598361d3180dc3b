import pytest

from serve_app.errors import NoTextTower
from serve_app.services import Embedded
from tests.fakes import FakeModel


@pytest.fixture
def understood(services, root, monkeypatch):
    """A text tower for which `rose` and `tulip` look like one photograph each; returns the texts it saw."""
    seen = []

    async def embed_texts(model, texts):
        seen.extend(texts)
        files = ["tulip/c.png" if "tulip" in text else "rose/a.png" for text in texts]
        images = [(root / "flowers" / file).read_bytes() for file in files]
        return Embedded(services.embedder.model.card, [services.embedder.model.vector(image) for image in images])

    monkeypatch.setattr(services.embedder, "embed_texts", embed_texts)
    return seen


def url(dataset):
    return f"/datasets/{dataset['id']}/labels"


async def samples(client, dataset, where):
    answer = await client.get(f"/datasets/{dataset['id']}/samples", params={"where": where})
    return {item["id"] for item in answer.json()["items"]}


async def test_each_sample_gets_its_best_phrase_and_score_as_columns(client, embedded, understood):
    answer = await client.post(url(embedded), json={"phrases": ["rose", "tulip"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["columns"] == ["zero_shot", "zero_shot_score"]
    assert answer.json()["samples"] == sum(phrase["count"] for phrase in answer.json()["phrases"]) == 4
    assert "tulip/c.png" in await samples(client, embedded, "zero_shot = 'tulip' AND zero_shot_score > 0.999")
    assert "rose/a.png" in await samples(client, embedded, "zero_shot = 'rose' AND zero_shot_score > 0.999")


async def test_phrases_are_put_into_every_template(client, embedded, understood):
    templates = ["a photo of a {}.", "a drawing of one {}"]
    answer = await client.post(
        url(embedded), json={"phrases": ["rose", "tulip"], "templates": templates, "column": "flower"}
    )
    assert answer.json()["columns"] == ["flower", "flower_score"]
    assert understood == [
        "a photo of a rose.", "a drawing of one rose", "a photo of a tulip.", "a drawing of one tulip",
    ]  # fmt: skip


async def test_phrases_whose_sentences_were_cut_are_named(client, services, embedded):
    services.embedder.model = FakeModel(no_text="")
    body = {"phrases": ["rose", "a tulip in the rain"], "templates": ["{}", "a {}"], "column": "flower"}
    answer = await client.post(url(embedded), json=body)
    assert answer.json()["notices"] == ["'a tulip in the rain' is longer than the model takes, and was cut"]
    short = await client.post(url(embedded), json={"phrases": ["rose", "tulip"], "templates": ["{}"]})
    assert short.json()["notices"] == []


async def test_only_the_samples_that_a_filter_chooses_are_labelled(client, embedded, understood):
    answer = await client.post(url(embedded), json={"phrases": ["rose", "tulip"]}, params={"where": "label = 'tulip'"})
    assert answer.json()["samples"] == 2
    assert await samples(client, embedded, "zero_shot IS NOT NULL") == {"tulip/c.png", "tulip/d e+é.png"}


@pytest.mark.parametrize(
    "options",
    [
        {"phrases": []},
        {"phrases": ["rose"]},
        {"phrases": ["rose", "rose"]},
        {"phrases": ["rose", " "]},
        {"phrases": ["rose", "tulip"], "templates": ["a photo"]},
        {"phrases": ["rose", "tulip"], "templates": ["{} and {}"]},
        {"phrases": [f"p{n}" for n in range(500)], "templates": ["{}", "a {}", "one {}"]},
        {"phrases": ["rose", "tulip"], "column": "label"},
        {"phrases": ["rose", "tulip"], "column": "c" * 95},
    ],
    ids=str,
)
async def test_options_that_make_no_sense_are_refused(client, services, embedded, options):
    services.embedder.model = FakeModel(no_text="")
    assert (await client.post(url(embedded), json=options)).status_code == 422


async def test_a_model_without_a_text_tower_labels_nothing(client, services, embedded):
    answer = await client.post(url(embedded), json={"phrases": ["rose", "tulip"]})
    assert (answer.status_code, answer.json()["code"]) == (NoTextTower.status, NoTextTower.code)


async def test_phrases_of_another_space_are_never_compared(client, services, embedded):
    services.embedder.model = FakeModel(space_key="another-space", no_text="")
    assert (await client.post(url(embedded), json={"phrases": ["rose", "tulip"]})).status_code == 409
