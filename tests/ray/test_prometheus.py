"""The dashboard, the scrape configuration and the alerts against Debian's Prometheus while it scrapes real jobs."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.faults.wait import PATIENCE_S, until
from tests.ports import free_port
from tests.ray.client import embed
from tests.ray.conftest import Service
from tests.ray.exporters import session_dir
from tests.ray.photographs import make_folder

DEPLOY = Path(__file__).parents[2] / "deploy"
PANELS = [
    panel
    for panel in json.loads((DEPLOY / "grafana" / "constellate.json").read_text())["panels"]
    if panel["type"] != "row"
]
ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus: apt-get install prometheus"),
]


class Prometheus:
    """A running server, asked through its API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=PATIENCE_S)

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._http.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def values(self, expression: str) -> list[float]:
        """What an expression is now, one number a series."""
        return [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]


@pytest.fixture(scope="module")
def prometheus(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with our configuration, but for this cluster's discovery file and every four seconds."""
    folder = tmp_path_factory.mktemp("prometheus")
    text = (DEPLOY / "prometheus.yml").read_text()
    text = text.replace("/tmp/ray/", f"{session_dir()}/").replace("_interval: 10s", "_interval: 4s")
    (folder / "prometheus.yml").write_text(text.replace("refresh_interval: 5s", "refresh_interval: 1s"))
    shutil.copy(DEPLOY / "alerts.yml", folder)
    port = free_port()
    server = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "log").open("wb"),
    )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: is_ready(url), lambda: (folder / "log").read_text()[-2000:])
        yield Prometheus(url)
    finally:
        server.terminate()
        server.wait(PATIENCE_S)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def scraped(prometheus: Prometheus, service: Service) -> Prometheus:
    """After two jobs that Prometheus has seen the end of, so that rates have something to compare."""
    for seed in (11, 12):
        embed(service.http, make_folder(service.roots / f"scraped-{seed}", n_images=24, seed=seed))
        n_complete = sum(job["status"] == "complete" for job in service.http.get("/jobs?limit=1000").json())
        until(lambda n=n_complete: prometheus.values('max(ray_jobs{state="complete"})') == [n])
    until(lambda: prometheus.values("sum(increase(ray_dino_images_total[30s]))") > [0])
    return prometheus


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_shows_data(scraped: Prometheus, panel: dict[str, Any]):
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "1m")
        until(lambda expression=expression: scraped.values(expression), lambda expression=expression: expression)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_alerts_read_metrics_that_exist_and_are_silent_on_a_sound_service(scraped: Prometheus, alert: dict[str, Any]):
    known = set(scraped.get("label/__name__/values"))
    for name in metrics_of(alert["expr"]):
        assert name in known, name
    # Not over five minutes: they hold the start of the service, which a busy machine makes slow.
    expression = alert["expr"].replace("[5m]", "[30s]")
    until(lambda: scraped.values(expression) == [], lambda: str(scraped.values(expression)))


def test_prometheus_has_loaded_every_rule(scraped: Prometheus):
    [group] = scraped.get("rules")["groups"]
    assert [rule["name"] for rule in group["rules"]] == [alert["alert"] for alert in ALERTS]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}


def metrics_of(expression: str) -> set[str]:
    """The metrics an expression names."""
    words = expression.replace("(", " ").replace(")", " ").replace("{", " ").replace("[", " ").split()
    return {word for word in words if word.startswith("ray_")}


def test_promtool_accepts_rules_and_configuration():
    ran = subprocess.run(
        ["promtool", "check", "config", "--syntax-only", DEPLOY / "prometheus.yml"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    ran = subprocess.run(["promtool", "check", "rules", DEPLOY / "alerts.yml"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
