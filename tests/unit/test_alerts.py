"""`deploy/alerts.yml` against the limits it warns of; `tests/ray` asks Prometheus whether its metrics exist."""

import re
from pathlib import Path

import yaml

from serve_app.api.progress_hub import MAX_STREAMS

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
ALERTS = {
    rule["alert"]: rule for rule in yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())["groups"][0]["rules"]
}


def test_an_ingress_is_reported_before_it_refuses_streams():
    alert = ALERTS["StreamsNearLimit"]
    # Each ingress reports its own streams, and so the largest figure is that of one process, as the limit is.
    threshold = re.fullmatch(r"max\(ray_sse_streams\) > (\d+)", alert["expr"])
    assert threshold is not None
    assert 0.8 * MAX_STREAMS <= int(threshold[1]) <= 0.9 * MAX_STREAMS
    assert f"its {MAX_STREAMS} progress streams" in alert["annotations"]["summary"]
    assert f"over {threshold[1]} streams of one ingress, which takes {MAX_STREAMS}" in OPERATIONS


def test_every_alert_is_on_the_page_about_operations():
    assert [name for name in ALERTS if f"`{name}`" not in OPERATIONS] == []
