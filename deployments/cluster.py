"""Chooses the policy for the resources of the Ray cluster."""

import ray

from serve_app.config import Settings
from serve_app.policy import Policy


def choose_policy(settings: Settings) -> Policy:
    """The policy for the connected cluster's machines, CPUs and GPUs."""
    resources = ray.cluster_resources()
    return Policy.choose(
        settings,
        n_cpus=resources.get("CPU", 1.0),
        n_gpus=resources.get("GPU", 0.0),
        n_nodes=sum(node["Alive"] for node in ray.nodes()),
    )
