"""How many replicas of a model Serve is told to keep, by the code and by `serve_config.yaml`."""

from pathlib import Path

import yaml

from deployments import embedder
from serve_app import main
from serve_app.policy import Policy

CONFIG = Path(__file__).parents[3] / "serve_config.yaml"


def bounds(application):
    """The (least, first, most) replicas of a model's application."""
    scaling = application._bound_deployment._deployment_config.autoscaling_config
    return scaling.min_replicas, scaling.initial_replicas, scaling.max_replicas


def test_the_default_model_keeps_its_replicas_and_a_further_one_keeps_none(monkeypatch, settings):
    policy = Policy.choose(settings, n_cpus=8, n_gpus=0)
    monkeypatch.setattr(main, "choose_policy", lambda settings: policy)
    assert bounds(main.embedder(settings)) == (8, 8, 8)
    assert bounds(embedder.application(settings, "another", policy, min_replicas=0)) == (0, 1, 8)


def test_the_configuration_file_leaves_the_number_of_replicas_to_the_settings():
    """It fixed `max_replicas`, so that `MAX_REPLICAS` changed the job loop's window alone."""
    applications = yaml.safe_load(CONFIG.read_text())["applications"]
    [model] = [d for application in applications for d in application["deployments"] if d["name"] == "DinoV2"]
    assert model.keys().isdisjoint({"autoscaling_config", "num_replicas"})
