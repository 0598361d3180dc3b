import re

import pytest

from serve_app.api import create_app
from serve_app.config import Settings

CONTRACT_ROUTES = """
POST /datasets
GET /datasets
GET /datasets/{}
DELETE /datasets/{}
POST /datasets/{}/rescan
GET /datasets/{}/samples
GET /datasets/{}/samples/{}/image
GET /datasets/{}/samples/{}/thumbnail
POST /datasets/{}/embeddings/generate
GET /datasets/{}/embeddings/progress
POST /datasets/{}/embeddings/cancel
GET /datasets/{}/embeddings/status
GET /datasets/{}/embeddings/skipped
POST /datasets/{}/embeddings/reduce
GET /datasets/{}/embeddings/reduce/progress
GET /datasets/{}/embeddings/coordinates
GET /datasets/{}/embeddings/export
GET /datasets/{}/similarity/{}
POST /datasets/{}/search
GET /datasets/{}/duplicates
GET /jobs
GET /jobs/{}
GET /v1/describe
POST /v1/embed/images/bytes
POST /v1/embeddings
GET /healthz
GET /readyz
"""


@pytest.fixture
def document(app):
    return app.openapi()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {re.sub('{[^}]*}', '{}', path)}", operation


def test_every_route_of_the_contract_is_there(document):
    assert set(CONTRACT_ROUTES.split("\n")) - {""} <= {route for route, _ in operations(document)}


def test_every_operation_says_what_its_errors_look_like(document):
    for route, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status == "default" or status.startswith(("4", "5")):
                assert list(answer["content"]) == ["application/problem+json"], route
        assert "default" in operation["responses"], route
        assert operation["tags"], route
        assert operation["description"], route


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
