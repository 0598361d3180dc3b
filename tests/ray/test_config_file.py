"""`serve_config.yaml` against what Serve and this code really accept: Serve drops unknown keys silently."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from serve_app.config import Settings
from tests.ray.conftest import Service

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "serve_config.yaml").read_text())

pytestmark = pytest.mark.ray


def unknown_keys(value: Any, model: type[BaseModel], where: str = "") -> list[str]:
    """Paths of keys that the pydantic model would drop, through nested models and lists of models."""
    unknown = []
    for key, inner in value.items():
        field = model.model_fields.get(key)
        if field is None:
            unknown.append(f"{where}{key}")
            continue
        nested = [t for t in (field.annotation, *_arguments(field.annotation)) if _is_model(t)]
        items = inner if isinstance(inner, list) else [inner]
        for item in items:
            if nested and isinstance(item, dict):
                unknown += unknown_keys(item, nested[0], f"{where}{key}.")
    return unknown


def _arguments(annotation: Any) -> list[Any]:
    return [inner for outer in get_args(annotation) for inner in (outer, *get_args(outer))]


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def test_serve_accepts_the_file():
    schema = ServeDeploySchema.model_validate(CONFIG)
    assert [application.name for application in schema.applications] == ["embedder", "api"]
    assert schema.http_options.host == "127.0.0.1"


def test_no_key_is_one_that_serve_would_drop():
    assert unknown_keys(CONFIG, ServeDeploySchema) == []
    for application in CONFIG["applications"]:
        for deployment in application["deployments"]:
            assert unknown_keys(deployment.get("autoscaling_config", {}), AutoscalingConfig) == []


def test_the_check_finds_a_misspelt_key():
    assert unknown_keys({"applications": [{"import_pth": "x"}]}, ServeDeploySchema) == ["applications.import_pth"]


@pytest.mark.parametrize("application", CONFIG["applications"], ids=lambda application: application["name"])
def test_arguments_are_settings(application: dict[str, Any]):
    assert Settings.model_validate(application["args"]).model == "dinov2-base"


@pytest.mark.parametrize("application", CONFIG["applications"], ids=lambda application: application["name"])
def test_the_file_names_the_deployments_that_the_code_makes(service: Service, application: dict[str, Any]):
    named = {deployment["name"] for deployment in application["deployments"]}
    assert named == set(serve.status().applications[application["name"]].deployments)
