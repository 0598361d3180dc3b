import shutil

import pytest

from serve_app.errors import ModelUnavailable
from tests.fakes import FakeModel
from tests.unit.api import work
from tests.unit.api.conftest import png


def url(dataset, tail):
    return f"/datasets/{dataset['id']}/{tail}"


def upload(data, name="query.png"):
    return {"file": (name, data, "image/png")}


def ids(answer):
    return {item["sample_id"] for item in answer.json()["items"]}


async def test_similar_samples_come_best_first_without_the_sample_itself(client, embedded):
    answer = await client.get(url(embedded, "similarity/rose/a.png"))
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert {item["sample_id"] for item in items} == {"rose/b.png", "tulip/c.png", "tulip/d e+é.png"}
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    assert {"sample_id", "file_name", "score"} <= set(items[0])
    fewer = await client.get(url(embedded, "similarity/rose/a.png"), params={"limit": 1})
    assert fewer.json()["items"] == items[:1]


async def test_a_sample_id_with_odd_characters_is_found(client, embedded):
    assert (await client.get(url(embedded, "similarity/tulip/d%20e+%C3%A9.png"))).status_code == 200


async def test_a_sample_that_does_not_exist_is_not_found(client, embedded):
    answer = await client.get(url(embedded, "similarity/no/such.png"))
    assert answer.status_code == 404
    assert answer.json()["code"] == "sample_not_found"


async def test_limits_out_of_bounds_are_refused(client, embedded):
    for limit in ["0", "-1", "1001", "1000000000", "1_0", "2.5"]:
        for tail in ["similarity/rose/a.png", "outliers"]:
            assert (await client.get(url(embedded, tail), params={"limit": limit})).status_code == 422, (tail, limit)


async def test_an_uploaded_copy_finds_its_original_first(client, embedded, root):
    data = (root / "flowers" / "tulip" / "c.png").read_bytes()
    answer = await client.post(url(embedded, "search"), files=upload(data), params={"limit": 2})
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert len(items) == 2
    assert items[0]["sample_id"] == "tulip/c.png"
    assert items[0]["score"] == pytest.approx(1)


async def test_an_upload_that_is_no_image_says_why(client, embedded):
    answer = await client.post(url(embedded, "search"), files=upload(b"text"))
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_image"
    assert "unidentified" in answer.json()["detail"]


async def test_an_upload_over_the_limit_is_refused(client, embedded):
    answer = await client.post(url(embedded, "search"), files=upload(b"\x89PNG" + b"x" * 10 * 2**20))
    assert answer.status_code == 413
    assert answer.json()["code"] == "too_large"


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "multipart/form-data; boundary=b", 422),
        (b"garbage", "multipart/form-data", 400),
        (b"garbage", "multipart/form-data; boundary=b", 400),
        (
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n',
            "multipart/form-data; boundary=b",
            422,
        ),
        (b"{}", "application/json", 422),
        (b"text", "text/plain", 415),
    ],
    ids=["empty", "no boundary", "no parts", "no file name", "json without text", "text"],
)
async def test_a_malformed_upload_is_a_problem(client, embedded, content, content_type, status):
    answer = await client.post(url(embedded, "search"), content=content, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_words_find_the_images_that_fit_them_first(client, services, embedded, root, monkeypatch):
    services.embedder.model = FakeModel(no_text="")
    vector = services.embedder.model.vector((root / "flowers" / "tulip" / "c.png").read_bytes())
    monkeypatch.setattr(services.embedder.model, "vector", lambda text: vector)
    answer = await client.post(url(embedded, "search"), json={"text": "a tulip"}, params={"limit": 2})
    assert answer.status_code == 200
    assert answer.json()["items"][0]["sample_id"] == "tulip/c.png"
    assert len(answer.json()["items"]) == 2
    assert answer.json()["notices"] == []
    filtered = await client.post(url(embedded, "search"), json={"text": "a tulip"}, params={"where": "label = 'rose'"})
    assert ids(filtered) == {"rose/a.png", "rose/b.png"}


async def test_words_that_the_model_cuts_are_searched_and_the_answer_says_so(client, services, embedded):
    services.embedder.model = FakeModel(no_text="")
    answer = await client.post(url(embedded, "search"), json={"text": "a tulip " * 10})
    assert len(answer.json()["items"]) == 4
    assert "longer than the model takes" in answer.json()["notices"][0]


async def test_words_are_refused_with_the_reason_where_the_sets_model_takes_no_text(client, services, embedded):
    answer = await client.post(url(embedded, "search"), json={"text": "a tulip"})
    assert (answer.status_code, answer.json()["code"]) == (409, "no_text_tower")
    assert "images only" in answer.json()["detail"]


@pytest.mark.parametrize(
    "text", ["", "  ", "x" * 10_000_000, None, 3], ids=["empty", "blank", "10 MB", "null", "number"]
)
async def test_what_is_no_text_to_search_by_is_refused(client, services, embedded, text):
    services.embedder.model = FakeModel(no_text="")
    answer = await client.post(url(embedded, "search"), json={"text": text})
    assert answer.status_code == 422
    assert len(answer.content) < 10_000


async def test_a_lone_surrogate_in_a_text_is_refused(client, services, embedded):
    services.embedder.model = FakeModel(no_text="")
    content = b'{"text": "a \\ud800"}'
    answer = await client.post(url(embedded, "search"), content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


async def test_words_never_meet_vectors_of_another_space(client, services, embedded):
    services.embedder.model = FakeModel(space_key="another-space", no_text="")
    answer = await client.post(url(embedded, "search"), json={"text": "a tulip"})
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_search_in_a_dataset_without_vectors_says_what_to_do(client, dataset):
    answer = await client.post(url(dataset, "search"), files=upload(png()))
    assert answer.status_code == 400
    assert answer.json()["code"] == "no_embeddings"


async def test_a_search_with_a_model_that_is_gone_is_unavailable(client, services, embedded):
    services.embedder.fault = ModelUnavailable("the weights are gone")
    answer = await client.post(url(embedded, "search"), files=upload(png()))
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_vectors_of_another_space_are_never_compared(client, services, embedded):
    services.embedder.model = FakeModel(space_key="another-space")
    answer = await client.post(url(embedded, "search"), files=upload(png()))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "generate them again" in answer.json()["detail"]


async def test_equal_files_form_a_group_of_duplicates(client, services, dataset, root):
    copy = (root / "flowers" / "rose" / "a.png").read_bytes()
    (root / "flowers" / "rose" / "b.png").write_bytes(copy)
    await client.post(url(dataset, "embeddings/generate"))
    await work.embed(services)
    answer = await client.get(url(dataset, "duplicates"), params={"threshold": "0.99"})
    assert answer.status_code == 200
    assert answer.json()["threshold"] == 0.99
    [group] = answer.json()["groups"]
    assert {item["sample_id"] for item in group} == {"rose/a.png", "rose/b.png"}


async def test_the_answer_is_that_of_the_newest_vectors(client, services, embedded, root):
    assert (await client.get(url(embedded, "duplicates"))).json()["groups"] == []
    (root / "flowers" / "rose" / "b.png").write_bytes((root / "flowers" / "tulip" / "c.png").read_bytes())
    await client.post(url(embedded, "embeddings/generate"))
    await work.embed(services)
    [nearest] = (await client.get(url(embedded, "similarity/rose/b.png"), params={"limit": 1})).json()["items"]
    assert (nearest["sample_id"], nearest["score"]) == ("tulip/c.png", pytest.approx(1))
    assert len((await client.get(url(embedded, "duplicates"))).json()["groups"]) == 1


async def test_what_a_rescan_removed_is_found_no_more(client, embedded, root):
    """The copy in memory was that of a job, and a rescan changes what is shown without one."""
    original = url(embedded, "similarity/rose/a.png")
    assert "rose/b.png" in ids(await client.get(original))
    (root / "flowers" / "rose" / "b.png").rename(root / "b.png")
    assert (await client.post(url(embedded, "rescan"))).json()["removed"] == 1
    assert ids(await client.get(original)) == {"tulip/c.png", "tulip/d e+é.png"}
    assert (await client.get(url(embedded, "similarity/rose/b.png"))).status_code == 404
    (root / "b.png").rename(root / "flowers" / "rose" / "b.png")
    assert (await client.post(url(embedded, "rescan"))).json()["added"] == 1
    assert "rose/b.png" in ids(await client.get(original))


async def test_a_set_that_a_rescan_emptied_has_nothing_to_find(client, embedded, root):
    shutil.rmtree(root / "flowers" / "rose")
    for tulip in (root / "flowers" / "tulip").iterdir():
        tulip.unlink()
    (root / "flowers" / "new.png").write_bytes(png())
    assert (await client.post(url(embedded, "rescan"))).status_code == 200
    assert (await client.get(url(embedded, "similarity/rose/a.png"))).status_code == 404
    found = await client.post(url(embedded, "search"), files=upload(png()))
    assert (found.status_code, found.json()["items"]) == (200, [])
    assert (await client.get(url(embedded, "duplicates"))).json()["groups"] == []
    for tail in ("outliers", "diverse"):
        answer = await client.get(url(embedded, tail))
        assert (answer.status_code, answer.json()["items"]) == (200, [])


async def test_a_threshold_out_of_bounds_is_refused(client, embedded):
    for threshold in ["0", "-1", "1.01", "nan", "inf", "1_0", "", "x", "1e999"]:
        assert (await client.get(url(embedded, "duplicates"), params={"threshold": threshold})).status_code == 422, (
            threshold
        )


async def test_outliers_and_diverse_choices_are_samples_with_scores(client, embedded):
    outliers = (await client.get(url(embedded, "outliers"), params={"k": 2, "limit": 3})).json()["items"]
    assert len(outliers) == 3
    assert [item["score"] for item in outliers] == sorted(item["score"] for item in outliers)
    diverse = (await client.get(url(embedded, "diverse"), params={"n": 2})).json()["items"]
    assert len(diverse) == 2


@pytest.mark.parametrize(
    ("tail", "params"), [("outliers", {"k": "0"}), ("outliers", {"k": "1001"}), ("diverse", {"n": "0"})]
)
async def test_counts_out_of_bounds_are_refused(client, embedded, tail, params):
    assert (await client.get(url(embedded, tail), params=params)).status_code == 422


@pytest.mark.parametrize("tail", ["similarity/rose/a.png", "duplicates", "outliers", "diverse"])
async def test_without_vectors_there_is_nothing_to_compare(client, dataset, tail):
    answer = await client.get(url(dataset, tail))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "No embeddings found. Generate embeddings first."


async def test_a_filter_leaves_only_what_it_chooses_to_every_question(client, embedded, root):
    where = {"where": "label = 'tulip'"}
    tulips = {"tulip/c.png", "tulip/d e+é.png"}
    assert ids(await client.get(url(embedded, "similarity/rose/a.png"), params=where)) == tulips
    assert ids(await client.get(url(embedded, "similarity/tulip/c.png"), params=where)) == {"tulip/d e+é.png"}
    data = (root / "flowers" / "rose" / "a.png").read_bytes()
    assert ids(await client.post(url(embedded, "search"), files=upload(data), params=where)) == tulips
    for tail in ("outliers", "diverse"):
        assert ids(await client.get(url(embedded, tail), params=where)) == tulips


async def test_duplicates_under_a_filter_do_not_link_what_it_leaves_out(client, services, dataset, root):
    copy = (root / "flowers" / "rose" / "a.png").read_bytes()
    (root / "flowers" / "rose" / "b.png").write_bytes(copy)
    await client.post(url(dataset, "embeddings/generate"))
    await work.embed(services)
    await client.post(url(dataset, "tags/keep"), json={"sample_ids": ["rose/a.png", "tulip/c.png"]})
    whole = {"threshold": "0.99", "where": "label = 'rose'"}
    assert len((await client.get(url(dataset, "duplicates"), params=whole)).json()["groups"]) == 1
    kept = {"threshold": "0.99", "where": "tag = 'keep'"}
    assert (await client.get(url(dataset, "duplicates"), params=kept)).json()["groups"] == []


@pytest.mark.parametrize("tail", ["similarity/rose/a.png", "search", "duplicates", "outliers", "diverse"])
async def test_every_question_says_what_is_wrong_with_a_filter(client, embedded, tail):
    params = {"where": "label = 'é' AND labl = 'x'"}
    if tail == "search":
        answer = await client.post(url(embedded, tail), files=upload(png()), params=params)
    else:
        answer = await client.get(url(embedded, tail), params=params)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["position"]) == (422, "invalid_filter", 16)
