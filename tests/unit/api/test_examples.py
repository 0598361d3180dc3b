"""The OpenAPI document's examples: each fits its schema, and each request is answered as the document says."""

import io
import json
from urllib.parse import quote

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.api import create_app, schemas
from serve_app.config import Settings
from tests.fakes import FakeModel
from tests.unit.api import work
from tests.unit.api.conftest import png

DOCUMENT = create_app(Settings(), lambda: None).openapi()
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def assert_fits(value, schema):
    jsonschema.validate(value, schema | {"components": DOCUMENT["components"]}, jsonschema.Draft202012Validator)


def followed(schema):
    """The schema that a reference leads to."""
    return DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def example_of(schema):
    """What readers of the document show: the schema's own example, or one put together from those of its parts."""
    schema = followed(schema)
    if "examples" in schema:
        return schema["examples"][0]
    if "default" in schema or "const" in schema:
        return schema.get("default", schema.get("const"))
    if "$ref" in schema.get("anyOf", [{}])[0]:  # an optional body
        return example_of(schema["anyOf"][0])
    if schema.get("type") == "array":
        return [example_of(schema["items"])]
    assert schema.get("type") == "object", f"give {schema.get('title')} an example beside its schema"
    needed = schema.get("required", [])
    parts = schema["properties"].items()
    return {name: example_of(part) for name, part in parts if name in needed or "examples" in part}


def contents(operation):
    """The schemas of a request and of its successes, but for those of bytes."""
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    for place in (operation.get("requestBody", {}), *answers):
        for media_type, content in place.get("content", {}).items():
            if content["schema"].get("format") != "binary" and media_type != "multipart/form-data":
                yield content["schema"]


def given(operation):
    """The place and example of each parameter that has one."""
    for parameter in operation.get("parameters", []):
        if "example" in parameter or "examples" in parameter["schema"]:
            yield parameter["name"], parameter["in"], parameter.get("example") or parameter["schema"]["examples"][0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_has_examples_that_fit_their_schemas(name):
    _, _, operation = OPERATIONS[name]
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
    examples = {key: value for key, _, value in given(operation)}
    assert examples.keys() >= {key for key, parameter in parameters.items() if parameter["required"]}
    for key, value in examples.items():
        assert_fits(value, parameters[key]["schema"])
    for schema in contents(operation):
        assert_fits(example_of(schema), schema)


async def test_events_are_as_the_document_says(client, embedded):
    answer = await client.get(f"/datasets/{embedded['id']}/embeddings/progress")
    schema = DOCUMENT["paths"]["/datasets/{dataset_id}/embeddings/progress"]["get"]["responses"]["200"]
    data = schema["content"]["text/event-stream"]["schema"]["properties"]["data"]["contentSchema"]
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [event["status"] for event in events] == ["complete"]
    for event in events:
        assert_fits(event, data | {"additionalProperties": False})


def test_every_operation_has_a_summary_and_an_id_for_generated_clients():
    for name, (_, _, operation) in OPERATIONS.items():
        assert name.isidentifier()
        assert "_" in name, "a verb and a noun"
        assert 10 < len(operation["summary"]) < 120
        assert not operation["summary"].endswith(".")


def parquet(sample_id):
    """An importable file of one vector."""
    file = io.BytesIO()
    pq.write_table(pa.table({"sample_id": [sample_id], "vector": [[0.5, -1.25, 2.0]]}), file)
    return file.getvalue()


class Walk:
    """Sends examples, with a real folder, dataset and job in the place of those they name."""

    def __init__(self, client, root):
        self.client = client
        self.real = {schemas.ROOT: str(root / "flowers")}
        self.sent = set()

    async def send(self, name):
        method, path, operation = OPERATIONS[name]
        query = {}
        for key, place, value in given(operation):
            if place == "path":
                path = path.replace("{" + key + "}", quote(self.with_real(value)))
            else:
                query[key] = value
        body = next(iter(operation.get("requestBody", {}).get("content", {"": {}}).items()))
        answer = await self.client.request(method, path, params=query, **self.payload(*body))
        assert str(answer.status_code) == min(operation["responses"]), (name, answer.text)
        self.sent.add(name)
        return answer

    def with_real(self, value):
        text = json.dumps(value)
        for example, stand_in in self.real.items():
            text = text.replace(example, stand_in)
        return json.loads(text)

    def payload(self, media_type, content):
        """The example as httpx takes it."""
        if media_type == "application/json":
            return {"json": self.with_real(example_of(content["schema"]))}
        if media_type == "multipart/form-data":
            return {"files": [(key, ("a.png", png())) for key in followed(content["schema"])["properties"]]}
        if media_type == "application/vnd.apache.parquet":
            return {"content": parquet(schemas.SAMPLE_ID), "headers": {"Content-Type": media_type}}
        if media_type == "text/csv":
            return {"content": f"sample_id,width\n{schemas.SAMPLE_ID},640\n", "headers": {"Content-Type": media_type}}
        assert media_type == "", f"no test sends {media_type}"
        return {}


async def test_every_example_is_answered_with_the_success_it_documents(client, services, root):
    services.embedder.model = FakeModel(no_text="")
    walk = Walk(client, root)
    walk.real[schemas.DATASET_ID] = (await walk.send("register_dataset")).json()["id"]
    await walk.send("generate_embeddings")
    await walk.send("cancel_job")
    walk.real[schemas.JOB_ID] = (await walk.send("generate_embeddings")).json()["job_id"]
    await walk.send("cancel_one_job")
    walk.real[schemas.JOB_ID] = (await walk.send("generate_embeddings")).json()["job_id"]
    await work.embed(services)
    await walk.send("reduce_embeddings")
    await work.reduce(services)
    await walk.send("make_graph")
    await walk.send("cancel_graph")
    await walk.send("put_columns")
    await walk.send("get_column")
    for name in sorted(OPERATIONS.keys() - walk.sent - {"import_vectors", "delete_embeddings", "delete_dataset"}):
        await walk.send(name)
    for name in ("import_vectors", "cancel_job", "delete_embeddings", "delete_dataset"):
        await walk.send(name)
    assert walk.sent == OPERATIONS.keys()
