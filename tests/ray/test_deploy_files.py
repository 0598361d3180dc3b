"""`deploy/`: what can be checked of a cluster's files without one."""

import copy
import os
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

from deployments import writer
from serve_app.config import Settings
from tests.faults.wait import until
from tests.ray.conftest import Service
from tests.ray.deploy_files import DOCUMENTS, ROOT, SERVE_CONFIG, SPEC
from tests.ray.test_config_file import CONFIG, unknown_keys

GROUPS = {group["groupName"]: group for group in SPEC["rayClusterConfig"]["workerGroupSpecs"]}
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def test_serve_accepts_the_configuration_of_the_ray_service_and_drops_no_key():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warned of a look-back period that a later release refuses
        ServeDeploySchema.model_validate(SERVE_CONFIG)
    assert unknown_keys(SERVE_CONFIG, ServeDeploySchema) == []


@pytest.mark.ray
def test_the_configuration_of_the_ray_service_is_what_runs_on_the_cluster(service: Service):
    """All of `tests/ray` asks a service that Serve has deployed from it: these are its numbers, not the code's."""
    running = serve.status().applications
    for application in SERVE_CONFIG["applications"]:
        deployments = running[application["name"]].deployments
        assert deployments.keys() == {deployment["name"] for deployment in application["deployments"]}

    def is_as_configured() -> bool:
        """An earlier test removed a node, whose replicas Serve goes on stopping for a minute or two."""
        running = serve.status().applications
        return all(
            running[application["name"]].deployments[deployment["name"]].replica_states.get("RUNNING") == n_replicas
            for application in SERVE_CONFIG["applications"]
            for deployment in application["deployments"]
            if (n_replicas := deployment.get("num_replicas"))
        )

    until(is_as_configured, lambda: str(serve.status()))


@pytest.mark.skipif("KUBERAY_CRD" not in os.environ, reason="$KUBERAY_CRD names ray.io_rayservices.yaml")
def test_kuberay_knows_every_field_of_the_ray_service():
    from jsonschema import Draft202012Validator

    versions = yaml.safe_load(Path(os.environ["KUBERAY_CRD"]).read_text())["spec"]["versions"]
    [kind] = [version for version in versions if DOCUMENTS["RayService"]["apiVersion"].endswith(f"/{version['name']}")]
    schema = refusing_unknown_fields(kind["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own, and not in the file
    document = copy.deepcopy(DOCUMENTS["RayService"])
    assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []
    document["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imge"] = "misspelt"
    assert not Draft202012Validator(schema).is_valid(document)


def refusing_unknown_fields(schema: Any) -> Any:
    """An OpenAPI schema of Kubernetes as JSON Schema; Kubernetes drops unknown fields silently, and this does not."""
    if isinstance(schema, list):
        return [refusing_unknown_fields(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {} if schema.get("x-kubernetes-preserve-unknown-fields") else {"additionalProperties": False}
    is_object = isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema
    return {key: refusing_unknown_fields(part) for key, part in schema.items()} | (closed if is_object else {})


def test_both_configurations_deploy_the_same_things():
    def shape(config: dict[str, Any]) -> dict[str, Any]:
        return {
            application["name"]: (application["import_path"], [d["name"] for d in application["deployments"]])
            for application in config["applications"]
        }

    assert shape(SERVE_CONFIG) == shape(CONFIG)
    assert SERVE_CONFIG["http_options"].keys() == CONFIG["http_options"].keys()


@pytest.mark.parametrize("application", SERVE_CONFIG["applications"], ids=lambda application: application["name"])
def test_the_arguments_are_settings_that_keep_the_database_in_one_place(application: dict[str, Any]):
    settings = Settings.model_validate(application["args"])
    assert settings.pin_writer
    mounts = GROUPS["writer"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert str(settings.data_dir) in {mount["mountPath"] for mount in mounts}


def test_one_pod_has_the_writers_resource_and_its_volume():
    claim = DOCUMENTS["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    holders = []
    for name, group in GROUPS.items():
        claims = [v.get("persistentVolumeClaim", {}).get("claimName") for v in group["template"]["spec"]["volumes"]]
        if writer.RESOURCE in group["rayStartParams"].get("resources", "") or claim["metadata"]["name"] in claims:
            holders.append(name)
    assert holders == ["writer"]
    assert [GROUPS["writer"][key] for key in ("replicas", "minReplicas", "maxReplicas")] == [1, 1, 1]
    assert SPEC["upgradeStrategy"]["type"] == "None"


def test_the_head_runs_nothing_of_ours_and_every_pod_knows_the_key():
    head = SPEC["rayClusterConfig"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in (head, *GROUPS.values()):
        names = {variable["name"] for variable in group["template"]["spec"]["containers"][0]["env"]}
        assert {"CONSTELLATE_API_KEY", "HF_HUB_OFFLINE"} <= names


def test_everything_the_image_copies_is_there_and_not_ignored():
    admitted = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert source in admitted, source


def test_the_image_installs_what_setup_installs_and_runs_as_nobody_special():
    assert "--constraint /src/constraints.txt '/src[service]'" in DOCKERFILE
    assert re.search(r"^USER 1000$", DOCKERFILE, re.M)
    assert re.search(r'^ENTRYPOINT \["tini", "--"\]$', DOCKERFILE, re.M)
