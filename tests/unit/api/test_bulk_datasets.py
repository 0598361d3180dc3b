"""What `constellate bulk` writes, opened as a dataset: its vectors become the set, and no model runs."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.bulk import Bulk
from deployments.bulk_source import Source
from serve_app.errors import OutsideRoots
from serve_app.jobs.listing import Lister
from serve_app.jobs.parts_job import parts_job
from serve_app.records import ModelCard
from serve_app.sources.bulk import Part, images_root
from serve_app.store.jobs import Jobs
from tests.fakes import FakeModel
from tests.unit.api import work
from tests.unit.api.conftest import png
from tests.unit.api.test_listing_jobs import ASYNC, run

CARD = ModelCard("dinov2-base", 4, "fake-space", "cpu", "fp32")


def vector_of(number):
    return np.eye(4, dtype=np.float32)[number] + np.float32(0.1)


def run_bulk(source, out, monkeypatch, part_images=2):
    """A run over a folder whose i-th image has `vector_of(i)`; everything but the embedding is bulk's own."""

    def batches(bulk, part):
        paths = list(bulk._found.files)
        rows = [
            {
                "path": path,
                "embedding": vector_of(paths.index(path)),
                "refusal": "unidentified: no image" if "broken" in path else None,
            }
            for path in part.inputs
        ]
        yield bulk._split(pa.Table.from_pylist([{**row, "embedding": row["embedding"].tolist()} for row in rows]))

    class Client:
        def describe(self):
            return CARD

    monkeypatch.setattr(Bulk, "_batches", batches)
    monkeypatch.setattr("deployments.bulk.EmbeddingClient", Client)
    return Bulk(str(source), out, part_images=part_images).run()


@pytest.fixture
def photos(root):
    folder = root / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png", "broken.png", "c.png")):
        (folder / name).write_bytes(png((50 * number, 9, 9)))
    return folder


@pytest.fixture
def parts(root, photos, monkeypatch):
    out = root / "vectors"
    run_bulk(photos, out, monkeypatch)
    return out


async def import_parts(services):
    claimed = await work.claim(services)
    assert claimed.job.kind == "import"
    await parts_job(claimed, services.writer, Lister(services.settings))
    return await services.writer.ask(Jobs.get, claimed.job.id)


async def test_the_output_of_bulk_opens_as_a_dataset_that_is_searched_without_a_model(client, services, parts, photos):
    answer = await client.post("/datasets", json={"name": "bulk", "root": str(parts)})
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["format"], dataset["root"], dataset["annotations"]) == ("bulk", str(photos), str(parts))
    assert (dataset["sample_count"], dataset["notices"]) == (3, [])
    job = await import_parts(services)
    assert (job.status, job.processed, job.total, job.message) == ("complete", 3, 3, "Imported vectors of 3 images")
    path = f"/datasets/{dataset['id']}"
    status = (await client.get(f"{path}/embeddings/status")).json()
    assert (status["embedding_count"], status["model_name"], status["space_key"]) == (3, "dinov2-base", "fake-space")
    similar = (await client.get(f"{path}/similarity/a.png?limit=5")).json()["items"]
    assert {item["sample_id"] for item in similar} == {"b.png", "c.png"}
    assert (await client.get(f"{path}/samples/a.png/image")).content == (photos / "a.png").read_bytes()
    assert (await client.get(f"{path}/samples/a.png/thumbnail")).status_code == 200
    assert services.embedder.n_images == 0


async def test_a_job_opens_it_as_well_and_its_import_survives_a_crash(client, services, parts):
    await client.post("/datasets", json={"name": "bulk", "root": str(parts), "format": "bulk"}, headers=ASYNC)
    listed = await run(services)
    assert (listed.status, listed.processed) == ("complete", 3)
    first = await work.claim(services)

    class Dies:
        n_blocks = 0

        async def ask(self, method, *args, **kwargs):
            answer = await services.writer.ask(method, *args, **kwargs)
            Dies.n_blocks += method.__name__ == "put"
            if Dies.n_blocks:
                raise InterruptedError
            return answer

    with pytest.raises(InterruptedError):
        await parts_job(first, Dies(), Lister(services.settings))
    await services.writer.ask(Jobs.release, first.job.id, first.attempt)
    job = await import_parts(services)
    assert (job.status, job.processed, job.skipped, job.attempt) == ("complete", 3, 0, 2)


async def test_images_outside_the_roots_are_searched_and_refused_with_the_reason(
    client, services, root, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("a.png", "b.png"):
        (elsewhere / name).write_bytes(png())
    run_bulk(elsewhere, root / "vectors", monkeypatch)
    dataset = (await client.post("/datasets", json={"name": "bulk", "root": str(root / "vectors")})).json()
    assert "not below one of DATASET_ROOTS" in " ".join(dataset["notices"])
    assert (await import_parts(services)).status == "complete"
    path = f"/datasets/{dataset['id']}"
    assert len((await client.get(f"{path}/similarity/a.png?limit=5")).json()["items"]) == 1
    refused = await client.get(f"{path}/samples/a.png/thumbnail")
    assert (refused.status_code, refused.json()["code"]) == (403, "outside_roots")
    with services.writer._database.read() as session:  # nothing was examined there
        assert session.q("SELECT DISTINCT size_bytes FROM samples") == [(-1,)]


async def test_a_rescan_imports_new_parts_and_leaves_the_same_ones(client, services, photos, parts, monkeypatch):
    dataset = (await client.post("/datasets", json={"name": "bulk", "root": str(parts)})).json()
    await import_parts(services)
    rescan = f"/datasets/{dataset['id']}/rescan"
    assert (await client.post(rescan)).json()["added"] == 0
    assert await services.writer.ask(Jobs.claim, "test", holding=[], lease_s=60) is None
    await client.post(f"/datasets/{dataset['id']}/embeddings/generate", json={"model_name": "dinov2-small"})
    services.embedder.model = FakeModel("dinov2-small")
    assert (await work.embed(services)).status == "complete"
    assert (await client.post(rescan)).json()["added"] == 0
    assert await services.writer.ask(Jobs.claim, "test", holding=[], lease_s=60) is None
    (photos / "b2.png").write_bytes(png((1, 2, 3)))
    (photos / "broken.png").unlink()
    run_bulk(photos, parts, monkeypatch)
    assert (await client.post(rescan)).json()["added"] == 1
    job = await import_parts(services)
    assert (job.status, job.processed) == ("complete", 4)


async def test_a_rescan_imports_the_parts_of_another_model(client, services, photos, parts, monkeypatch):
    dataset = (await client.post("/datasets", json={"name": "bulk", "root": str(parts)})).json()
    await import_parts(services)
    for part in parts.iterdir():
        part.unlink()
    monkeypatch.setattr(f"{__name__}.CARD", replace(CARD, name="dinov2-large", space_key="another-space"))
    run_bulk(photos, parts, monkeypatch)
    assert (await client.post(f"/datasets/{dataset['id']}/rescan")).json()["added"] == 0
    job = await import_parts(services)
    assert (job.status, job.processed, job.model_name) == ("complete", 3, "dinov2-large")


async def test_what_is_no_output_of_bulk_is_refused_as_such(client, root):
    other = root / "other"
    other.mkdir()
    pq.write_table(pa.table({"file_name": ["a.png"]}), other / "part-00000.parquet")
    answer = await client.post("/datasets", json={"name": "n", "root": str(other), "format": "bulk"})
    assert answer.status_code == 422
    assert "no parts of `constellate bulk`" in answer.json()["detail"]


def test_the_source_of_a_run_is_what_its_names_are_relative_to(tmp_path, photos):
    found = [Part(tmp_path, 1, {"source": str(photos)})]
    assert images_root(found, (tmp_path,)) == photos
    assert str(images_root([Part(tmp_path, 1, {"source": "s3://bucket/a/b.png"})], ())) == "s3://bucket/a"
    assert Source.find(str(photos)).relative(str(photos / "a.png")) == "a.png"


def test_a_link_outside_the_roots_is_not_followed_to_show_where_it_leads(tmp_path, photos):
    link = tmp_path / "link"
    link.symlink_to(photos)
    found = [Part(tmp_path, 1, {"source": str(link)})]
    assert images_root(found, (tmp_path / "other",)) == link
    assert images_root(found, (photos.parent,)) == photos


@pytest.mark.parametrize(
    "mark", [{"model_name": "a\nb"}, {"model_name": "m" * 201}, {"space_key": "a\x1bb"}, {"source": "/a\0b"}]
)
async def test_parts_whose_marks_no_import_takes_are_refused(client, root, mark):
    marks = {"source": "/photos", "inputs": "a", "space_key": "s", "model_name": "m", **mark}
    (root / "vectors").mkdir()
    rows = pa.table({"file_name": ["a.png"], "vector": [[1.0]]}).replace_schema_metadata(marks)
    pq.write_table(rows, root / "vectors" / "part-00000.parquet")
    answer = await client.post("/datasets", json={"name": "n", "root": str(root / "vectors")})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text
    assert next(iter(mark)) in answer.json()["detail"]


async def test_parts_are_not_read_once_the_roots_no_longer_have_them(client, services, parts, tmp_path):
    await client.post("/datasets", json={"name": "bulk", "root": str(parts)})
    narrowed = services.settings.model_copy(update={"dataset_roots": (tmp_path / "other",)})
    with pytest.raises(OutsideRoots):
        await parts_job(await work.claim(services), services.writer, Lister(narrowed))
