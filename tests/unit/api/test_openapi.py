import re
from pathlib import Path

import pytest

from serve_app.api import create_app
from serve_app.config import Settings

API_PAGE = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.fixture
def document(app):
    return app.openapi()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {re.sub('{[^}]*}', '{}', path)}", operation


def test_the_page_about_the_api_names_every_route_and_no_other(document):
    named = re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", API_PAGE.read_text(), re.MULTILINE)
    assert sorted(re.sub("{[^}]*}", "{}", route) for route in named) == sorted(
        route for route, _ in operations(document)
    )


def test_every_operation_says_what_its_errors_look_like(document):
    for route, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status == "default" or status.startswith(("4", "5")):
                assert list(answer["content"]) == ["application/problem+json"], route
        assert "default" in operation["responses"], route
        assert operation["tags"], route
        assert operation["description"], route


@pytest.mark.parametrize(
    ("question", "codes"),
    [
        ("duplicates", {"409": "`conflict` or `graph_needed`", "503": "`overloaded`"}),
        ("outliers", {"409": "`conflict` or `graph_needed`", "503": "`overloaded`"}),
        ("diverse", {"409": "`conflict`", "503": "`overloaded`"}),
        ("similarity/{}", {"409": "`conflict`"}),
    ],
)
def test_a_question_says_that_vectors_may_change_meanwhile_and_that_others_may_be_computing(document, question, codes):
    [responses] = [
        operation["responses"] for route, operation in operations(document) if route.endswith(f"}}/{question}")
    ]
    for status, described in codes.items():
        assert described in responses[status]["description"]


def test_bounds_are_where_clients_look_for_them(document):
    for route, operation in operations(document):
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            assert not schema.keys() & {"ge", "le", "gt", "lt"}, route
            if schema["type"] == "integer":
                assert {"minimum", "maximum"} <= schema.keys(), route


@pytest.mark.parametrize("key", [None, "secret"])
def test_the_api_key_is_documented_and_required_where_one_is_set(key):
    document = create_app(Settings(api_key=key), lambda: None).openapi()
    assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
    for route, operation in operations(document):
        if route == "GET /healthz":
            assert "security" not in operation
        else:
            assert operation["security"][0] == {"ApiKey": []}
            assert ({} in operation["security"]) is (key is None), route
            assert "401" in operation["responses"], route


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/([A-Za-z0-9_]+)", str(document)):
        assert name in schemas
    assert "HTTPValidationError" not in schemas


def test_operation_ids_are_unique(document):
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))


async def test_the_document_is_served(client):
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.json()["info"]["title"] == "Constellate"
    for page in ("/docs", "/redoc"):
        assert (await client.get(page)).status_code == 404
