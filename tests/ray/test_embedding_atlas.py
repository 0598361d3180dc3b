"""Embedding Atlas' own command with this service as its embedder.

It is no dependency: it brings a LiteLLM that wants another `openai` package. It lives in `.venv-recipes`;
`make test-recipes` makes that and runs this.
"""

import os
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.ray.conftest import Service
from tests.ray.photographs import make_photograph

COMMAND = Path(__file__).parents[2] / ".venv-recipes" / "bin" / "embedding-atlas"

pytestmark = [
    pytest.mark.ray,
    pytest.mark.recipes,
    pytest.mark.skipif(not COMMAND.exists(), reason="the recipes' environment is not there: make recipes"),
]


def test_a_table_of_images_becomes_a_map_of_this_services_vectors(service: Service, tmp_path: Path):
    # Twins lie 20 rows apart: only vectors of the images themselves make them each other's neighbours.
    images = [make_photograph(tmp_path / "images" / f"{i}.jpg", i % 20).read_bytes() for i in range(40)]
    table = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": [{"bytes": image, "path": None} for image in images]}), table)

    space_key = service.http.get("/v1/describe").json()["space_key"]
    archive = tmp_path / "atlas.zip"
    command = [COMMAND, table, "--image", "image", "--embedder", "litellm", "--export-application", archive]
    command += ["--model", f"openai/tiny-dinov2@{space_key[:12]}"]
    command += ["--api-base", f"{service.settings.url}/v1", "--api-key", "unused"]
    environment = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NUMBA_OPT": "0",  # of 40 rows compiling the search takes longer than searching
    }
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

    with zipfile.ZipFile(archive) as files:
        rows = pq.read_table(BytesIO(files.read("data/dataset.parquet"))).to_pylist()
    assert np.isfinite([[row["projection_x"], row["projection_y"]] for row in rows]).all()
    for i, row in enumerate(rows):
        assert (i + 20) % 40 in row["__neighbors"]["ids"][:2]
