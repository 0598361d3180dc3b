import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from serve_app import errors
from serve_app.api import problems
from serve_app.api.schemas import NewDataset
from tests.unit.error_tree import every_error

API_PAGE = Path(__file__).parents[3] / "docs" / "api.md"


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_every_service_error_is_a_problem_with_its_status_and_code(error):
    answer = problems.answer(error("why: because"), {"path": "/jobs", "request_id": "r1"})
    assert answer.status_code == error.status
    assert answer.media_type == "application/problem+json"
    text = answer.body.decode()
    assert f'"code": "{error.code}"' in text
    assert '"request_id": "r1"' in text
    assert "because" in text
    assert ("retry-after" in answer.headers) is issubclass(error, errors.Unavailable)
    assert ("www-authenticate" in answer.headers) is (error.status == 401)


def test_the_page_about_the_api_names_every_code_beside_its_status_and_no_other():
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", API_PAGE.read_text(), re.MULTILINE)
    named = {(int(status), code) for status, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    of_http = {(status, problems.of_status(status, "").code) for status in (400, 403, 405, 408, 421)}
    assert named == {(error.status, error.code) for error in every_error()} | of_http | {(503, "not_ready")}


async def test_unknown_paths_and_methods_are_problems(client):
    missing = await client.get("/no/such/path")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = await client.put("/datasets")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD, POST"
    assert (await client.options("/static/app.js")).headers["allow"] == "GET, HEAD"
    for answer in (missing, wrong):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"


def test_a_flood_of_wrong_fields_makes_a_small_answer():
    body = {f"{'x' * 1000}{i}": i for i in range(1000)}
    with pytest.raises(ValidationError) as invalid:
        NewDataset.model_validate(body)
    problem = problems.of_validation(invalid.value.errors())
    assert len(problem.errors) == problems.MAX_FIELD_ERRORS
    assert len(problem.model_dump_json()) < 10_000
    assert "(and 1001 more)" in problem.detail
