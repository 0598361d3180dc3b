"""The main job on a real cluster: files in, vectors out, exactly those of transformers."""

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow.ipc as ipc
import pytest
import torch
from PIL import Image
from ray import serve
from transformers import AutoImageProcessor, AutoModel

from deployments.embedder import application_name
from tests.ray.client import embed, export_table, finish, follow, generate, register
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder, make_photograph
from tests.ray.replicas import frozen, nodes_of

pytestmark = pytest.mark.ray


def reference_vectors(model_dir: str, files: list[Path]) -> np.ndarray:
    """(N, D) CLS tokens as a user of transformers would compute them, one image at a time."""
    processor = AutoImageProcessor.from_pretrained(model_dir)
    model = AutoModel.from_pretrained(model_dir).eval()
    rows = []
    with torch.inference_mode():
        for file in files:
            inputs = processor(Image.open(file).convert("RGB"), return_tensors="pt")
            rows.append(model(**inputs).last_hidden_state[0, 0].numpy())
    return np.stack(rows)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def vectors_by_id(service: Service, dataset_id: str) -> dict[str, np.ndarray]:
    table = export_table(service.http, dataset_id)
    matrix = np.stack(table["vector"].to_numpy(zero_copy_only=False))
    return dict(zip(table["sample_id"].to_pylist(), matrix, strict=True))


def test_every_vector_is_the_one_transformers_computes(service: Service):
    root = make_folder(service.roots / "parity", n_images=24)
    dataset_id, end = embed(service.http, root)
    assert (end["status"], end["processed"], end["total"], end["skipped"]) == ("complete", 24, 24, 0)

    found = vectors_by_id(service, dataset_id)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    assert sorted(found) == [str(path.relative_to(root)) for path in files]
    ours = np.stack([found[str(path.relative_to(root))] for path in files])
    theirs = reference_vectors(service.settings.model, files)
    assert ours.dtype == np.float32
    assert ours.shape == (24, 768)
    assert cosine(ours, theirs).min() > 0.9995
    # The images differ clearly, so agreement with the wrong image would not pass.
    assert cosine(ours, np.roll(theirs, 1, axis=0)).max() < 0.999


def test_labels_are_the_sub_folders(service: Service):
    root = make_folder(service.roots / "labels", n_images=4)
    dataset_id = register(service.http, root)
    items = service.http.get(f"/datasets/{dataset_id}/samples").json()["items"]
    assert {(item["id"], item["label"]) for item in items} == {
        ("cat/0000.png", "cat"),
        ("dog/0001.jpg", "dog"),
        ("cat/0002.png", "cat"),
        ("dog/0003.jpg", "dog"),
    }


def test_a_stream_sees_the_count_rise_and_one_terminal_event(service: Service):
    root = make_folder(service.roots / "rising", n_images=160)  # a commit has what came in 0.3 s
    dataset_id = register(service.http, root)
    job_id = generate(service.http, dataset_id)
    events = list(follow(service.http, dataset_id))
    counts = [event["processed"] for event in events]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2
    assert [event["status"] for event in events[:-1]] == ["running"] * (len(events) - 1)
    assert (events[-1]["status"], events[-1]["processed"]) == ("complete", 160)
    assert {event["job_id"] for event in events} == {job_id}
    assert events[-1]["id"].startswith(f"{job_id}:")


def test_a_second_generate_reuses_every_vector_and_force_computes_them(service: Service):
    root = make_folder(service.roots / "again", n_images=10)
    dataset_id, _ = embed(service.http, root)
    before = vectors_by_id(service, dataset_id)

    generate(service.http, dataset_id)
    finish(service.http, dataset_id)
    job = service.http.get("/jobs").json()[0]
    assert (job["status"], job["processed"], job["reused"]) == ("complete", 10, 10)

    generate(service.http, dataset_id, force=True)
    finish(service.http, dataset_id)
    job = service.http.get("/jobs").json()[0]
    assert (job["status"], job["processed"], job["reused"]) == ("complete", 10, 0)
    after = vectors_by_id(service, dataset_id)
    assert cosine(np.stack(list(before.values())), np.stack([after[i] for i in before])).min() > 0.99999


def test_after_a_rescan_only_new_and_changed_files_are_embedded(service: Service):
    root = make_folder(service.roots / "rescan", n_images=8)
    dataset_id, _ = embed(service.http, root)
    before = vectors_by_id(service, dataset_id)

    make_photograph(root / "cat" / "new.png", 777)
    make_photograph(root / "cat" / "0000.png", 888)
    (root / "dog" / "0001.jpg").unlink()
    (root / "cat" / "0002.png").rename(root / "dog" / "renamed.png")
    shutil.copy(root / "cat" / "0004.png", root / "cat" / "copy.png")
    change = service.http.post(f"/datasets/{dataset_id}/rescan").json()
    assert change == {"added": 3, "changed": 1, "removed": 2}

    generate(service.http, dataset_id)
    end = finish(service.http, dataset_id)
    assert (end["status"], end["processed"], end["total"]) == ("complete", 9, 9)
    job = service.http.get("/jobs").json()[0]
    assert job["reused"] == 7  # 5 untouched, 1 renamed, 1 copy

    after = vectors_by_id(service, dataset_id)
    assert "dog/0001.jpg" not in after
    assert np.array_equal(after["dog/renamed.png"], before["cat/0002.png"])
    assert np.array_equal(after["cat/copy.png"], before["cat/0004.png"])
    assert not np.array_equal(after["cat/0000.png"], before["cat/0000.png"])


def test_bad_files_are_skipped_with_their_own_reasons_and_the_rest_is_embedded(service: Service):
    root = make_folder(service.roots / "bad", n_images=4)
    whole = (root / "dog" / "0001.jpg").read_bytes()
    (root / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("not an image")
    (root / "gone.jpg").write_bytes(whole)
    dataset_id = register(service.http, root)
    (root / "gone.jpg").unlink()
    generate(service.http, dataset_id)
    end = finish(service.http, dataset_id)
    assert (end["status"], end["processed"], end["skipped"], end["total"]) == ("complete", 8, 4, 8)
    skipped = service.http.get(f"/datasets/{dataset_id}/embeddings/skipped").json()["items"]
    assert {item["file_name"]: item["reason"] for item in skipped} == {
        "truncated.jpg": "truncated",
        "empty.jpg": "empty",
        "text.jpg": "unidentified",
        "gone.jpg": "not_found",
    }


def test_only_one_job_runs_and_cancelling_it_keeps_the_old_vectors(service: Service):
    root = make_folder(service.roots / "cancel", n_images=40)
    dataset_id = register(service.http, root)
    with frozen(nodes_of("DinoV2")):  # or the job might end first
        job_id = generate(service.http, dataset_id)
        refused = service.http.post(f"/datasets/{dataset_id}/embeddings/generate", json={})
        assert (refused.status_code, refused.json()["job_id"]) == (409, job_id)
        assert service.http.delete(f"/datasets/{dataset_id}").status_code == 409
        assert service.http.post(f"/datasets/{dataset_id}/embeddings/cancel").status_code == 202
        assert service.http.post(f"/datasets/{dataset_id}/embeddings/cancel").status_code == 409
    assert finish(service.http, dataset_id)["status"] == "cancelled"
    assert service.http.get(f"/datasets/{dataset_id}/embeddings/status").json()["has_embeddings"] is False
    generate(service.http, dataset_id)
    assert finish(service.http, dataset_id)["processed"] == 40


def test_arrow_export_equals_parquet(service: Service):
    root = make_folder(service.roots / "arrow", n_images=6)
    dataset_id, _ = embed(service.http, root)
    answer = service.http.get(f"/datasets/{dataset_id}/embeddings/export", params={"format": "arrow"})
    arrow = ipc.open_stream(io.BytesIO(answer.content)).read_all()
    parquet = export_table(service.http, dataset_id)
    kept = ["sample_id", "file_name", "label", "model_name", "vector", "x", "y"]
    assert arrow.column_names == [*kept, "width", "height", "format"]
    assert arrow.to_pylist() == parquet.to_pylist()


def test_another_model_gets_its_own_deployment_and_a_set_beside_the_first(service: Service, tmp_path: Path):
    from tests.tiny_models import make_tiny_checkpoint

    root = make_folder(service.roots / "other-model", n_images=4)
    dataset_id, _ = embed(service.http, root)
    other = make_tiny_checkpoint(tmp_path / "tiny-384", hidden=384, heads=6, seed=3)
    generate(service.http, dataset_id, model_name=str(other))
    assert finish(service.http, dataset_id)["status"] == "complete"
    assert {vector.shape for vector in vectors_by_id(service, dataset_id).values()} == {(384,)}
    assert application_name(service.settings, str(other)) in serve.status().applications
    status = service.http.get(f"/datasets/{dataset_id}/embeddings/status").json()
    assert (status["embedding_count"], status["dimension"]) == (4, 384)
    first = status["sets"][1]["model_name"]
    assert [made["model_name"] for made in status["sets"]] == [str(other), first]
    for model, dimension in ((first, status["sets"][1]["dimension"]), (str(other), 384)):
        chosen = service.http.get(f"/datasets/{dataset_id}/embeddings/status", params={"model": model}).json()
        assert (chosen["embedding_count"], chosen["dimension"]) == (4, dimension)
        found = service.http.get(f"/datasets/{dataset_id}/diverse", params={"n": 4, "model": model})
        assert len(found.json()["items"]) == 4
    assert service.http.delete(f"/datasets/{dataset_id}/embeddings", params={"model": first}).status_code == 204
    assert service.http.get(f"/datasets/{dataset_id}/diverse", params={"model": first}).status_code == 400
