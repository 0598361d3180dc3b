import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.test_strict_json import REFUSED

BODY_ROUTES = [
    "/datasets",
    "/datasets/{id}/embeddings/generate",
    "/datasets/{id}/embeddings/reduce",
    "/v1/embeddings",
]
UPLOAD_ROUTES = ["/datasets/{id}/search", "/v1/embed/images/bytes"]
READ_ROUTES = [
    "/datasets/{id}/samples",
    "/datasets/{id}/embeddings/skipped",
    "/datasets/{id}/embeddings/export",
    "/datasets/{id}/embeddings/coordinates",
    "/datasets/{id}/similarity/rose/a.png",
    "/datasets/{id}/duplicates",
    "/datasets/{id}/outliers",
    "/datasets/{id}/diverse",
    "/datasets/{id}/samples/rose/a.png/thumbnail",
    "/jobs",
]
PARAMETERS = ["limit", "cursor", "format", "threshold", "k", "n", "size"]

ODD_TEXT = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1e9",
        "1_0",
        "1.5",
        "9" * 400,
        "1e999",
        "nan",
        "Infinity",
        "٣",
        "\0",
        "'; --",
        "true",
        "null",
        "%00",
    ]
)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | ODD_TEXT | st.integers().map(str) | st.floats().map(str)
KEYS = st.sampled_from(
    [
        "name",
        "root",
        "format",
        "annotations",
        "model_name",
        "force",
        "n_neighbors",
        "min_dist",
        "metric",
        "random_state",
        "model",
        "input",
        "dimensions",
        "encoding_format",
    ]
) | st.text(max_size=5)
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["auto", "cosine", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=8,
)

# The database is set up once; what one example leaves behind is part of the next one's test.
many = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_answered(answer):
    assert answer.status_code < 500, (answer.request.url, answer.request.content, answer.text)
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status_code
        assert "Traceback" not in problem["detail"]


@given(route=st.sampled_from(BODY_ROUTES), body=ANY_JSON | st.dictionaries(KEYS, ANY_JSON, max_size=6))
@many
async def test_no_json_body_is_answered_with_a_5xx(client, embedded, route, body):
    text = json.dumps(body)  # NaN, Infinity and lone surrogates included
    headers = {"Content-Type": "application/json"}
    assert_answered(await client.post(route.format(id=embedded["id"]), content=text.encode(), headers=headers))


@given(route=st.sampled_from(READ_ROUTES), query=st.dictionaries(st.sampled_from(PARAMETERS), ANY_TEXT, max_size=4))
@many
async def test_no_query_is_answered_with_a_5xx(client, embedded, route, query):
    assert_answered(await client.get(route.format(id=embedded["id"]), params=query))


@given(
    route=st.sampled_from(UPLOAD_ROUTES),
    content=st.binary(max_size=200),
    content_type=st.sampled_from(["application/json", "multipart/form-data; boundary=b", "text/plain", 'a/b; c="', ""]),
)
@many
async def test_no_upload_is_answered_with_a_5xx(client, embedded, route, content, content_type):
    headers = {"Content-Type": content_type}
    assert_answered(await client.post(route.format(id=embedded["id"]), content=content, headers=headers))


@pytest.mark.parametrize("route", BODY_ROUTES)
async def test_malformed_json_is_a_400_on_every_route_that_takes_json(client, dataset, route):
    headers = {"Content-Type": "application/json"}
    for body in filter(None, REFUSED.values()):
        answer = await client.post(route.format(id=dataset["id"]), content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["code"] == "malformed_json"
