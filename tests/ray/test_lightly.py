"""LightlyStudio's own check of its protocol, and what it leaves out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deployments.client import EmbeddingClient
from tests.ray.conftest import Service
from tests.ray.photographs import make_photograph

pytestmark = pytest.mark.ray


def test_the_conformance_command_passes(service: Service):
    command = [Path(sys.executable).parent / "lightly-studio-serve", "conformance", service.settings.url]
    # The tool gives an answer five seconds: a busy machine may need another try.
    for _ in range(5):
        check = subprocess.run(command, capture_output=True, text=True)
        if check.returncode == 0:
            break
    assert check.returncode == 0, check.stdout
    assert "PASSED" in check.stdout
    assert "image_bytes  passed" in check.stdout


def test_a_full_request_is_answered_in_order_without_the_broken_images(service: Service):
    described = service.http.get("/v1/describe").json()
    most = described["limits"]["max_batch_size"]
    images = [make_photograph(service.roots / "lightly" / f"{i}.png", i).read_bytes() for i in range(most)]
    images[5] = images[5][:100]
    images[40] = b"text"
    files = [("files", (str(i), image, "application/octet-stream")) for i, image in enumerate(images)]

    answer = service.http.post("/v1/embed/images/bytes", files=files)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["kept_indices"] == [i for i in range(most) if i not in (5, 40)]
    assert (body["space_key"], body["dimension"]) == (described["space_key"], 768)
    direct = EmbeddingClient().embed([images[i] for i in body["kept_indices"]])
    assert np.allclose(np.array(body["embeddings"], np.float32), direct, rtol=1e-4, atol=1e-5)

    too_many = service.http.post("/v1/embed/images/bytes", files=[*files, files[0]])
    assert too_many.status_code == 413
