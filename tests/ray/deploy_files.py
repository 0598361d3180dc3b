"""What `deploy/kuberay.yaml` says, and its Serve configuration as it can run on a machine without GPUs."""

import copy
from pathlib import Path
from typing import Any

import yaml

from serve_app.config import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = {
    document["kind"]: document for document in yaml.safe_load_all((ROOT / "deploy" / "kuberay.yaml").read_text())
}
SPEC = DOCUMENTS["RayService"]["spec"]
SERVE_CONFIG: dict[str, Any] = yaml.safe_load(SPEC["serveConfigV2"])


def on_this_machine(settings: Settings) -> dict[str, Any]:
    """`serveConfigV2` with a model, folders and sizes that are here; everything else is as KubeRay would send it.

    All nodes of a test are on one machine and share its ports, so there is one proxy.
    """
    config = copy.deepcopy(SERVE_CONFIG)
    config["proxy_location"] = "HeadOnly"
    config["http_options"] |= {"host": settings.host, "port": settings.port}
    names = ("host", "port", "model", "device", "max_replicas", "data_dir", "dataset_roots")
    ours = {name: settings.model_dump(mode="json")[name] for name in names} | {"gpus_per_replica": 0}
    for application in config["applications"]:
        assert ours.keys() - {"port"} <= application["args"].keys(), "this would replace what the file does not say"
        application["args"] |= ours
        for deployment in application["deployments"]:
            if deployment["name"] == "DinoV2":
                # Both must not stay: of the two nodes one is to die, and the other then has no core for the rest.
                deployment["autoscaling_config"] |= {
                    "initial_replicas": settings.max_replicas,
                    "max_replicas": settings.max_replicas,
                    "target_ongoing_requests": 2,
                    "downscale_delay_s": 60,
                }
    return config
