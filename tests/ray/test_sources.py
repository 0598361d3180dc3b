"""Datasets that lie in buckets, tars and Parquet files, on a real cluster."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import s3_server
from tests.ray.client import embed, finish, generate
from tests.ray.conftest import Service
from tests.ray.photographs import make_folder
from tests.ray.test_embedding_job import vectors_by_id

pytestmark = pytest.mark.ray


def photographs(folder: Path) -> dict[str, bytes]:
    make_folder(folder, n_images=6, seed=71)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def write_tar(path: Path, images: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in images.items():
            for member, content in ((name, data), (str(Path(name).with_suffix(".cls")), name[:3].encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_parquet(path: Path, images: dict[str, bytes]) -> None:
    struct = [{"bytes": data, "path": name} for name, data in images.items()]
    pq.write_table(pa.table({"image": struct, "label": [name[:3] for name in images]}), path, row_group_size=4)


def register_source(service: Service, root: str) -> str:
    answer = service.http.post("/datasets", json={"name": root, "root": root})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_the_same_images_have_the_same_vectors_wherever_they_lie(service: Service, s3_url: str):
    images = photographs(service.roots / "here")
    s3_server.fill(s3_url, "photos", {f"set/{name}": data for name, data in images.items()})
    (service.roots / "tars").mkdir()
    write_tar(service.roots / "tars" / "a.tar", images)
    (service.roots / "tables").mkdir()
    write_parquet(service.roots / "tables" / "a.parquet", images)

    here, _ = embed(service.http, service.roots / "here")
    wanted = vectors_by_id(service, here)
    assert len(wanted) == 6
    for root, reused, ids in (
        ("s3://photos/set", 6, {name: name for name in images}),
        (str(service.roots / "tars"), 6, {name: f"a.tar/{name}" for name in images}),
        (str(service.roots / "tables" / "a.parquet"), 0, {name: f"a.parquet/{i}" for i, name in enumerate(images)}),
    ):
        dataset_id = register_source(service, root)
        job_id = generate(service.http, dataset_id)
        end = finish(service.http, dataset_id)
        assert (end["status"], end["processed"], end["skipped"]) == ("complete", 6, 0), end
        assert service.http.get(f"/jobs/{job_id}").json()["reused"] == reused
        found = vectors_by_id(service, dataset_id)
        for name, sample_id in ids.items():
            assert np.abs(found[sample_id] - wanted[name]).max() < 1e-3
            path = f"/datasets/{dataset_id}/samples/{sample_id}"
            assert service.http.get(f"{path}/image").content == images[name]
        assert service.http.get(f"{path}/thumbnail").headers["content-type"].startswith("image/")
        generate(service.http, dataset_id)
        assert finish(service.http, dataset_id)["message"].endswith("6 reused")
        assert service.http.post(f"/datasets/{dataset_id}/rescan").json() == {"added": 0, "changed": 0, "removed": 0}


def test_a_bucket_that_vanishes_leaves_the_vectors(service: Service, s3_url: str):
    images = photographs(service.roots / "leaving")
    system = s3_server.fill(s3_url, "leaving", images)
    dataset_id = register_source(service, "s3://leaving")
    generate(service.http, dataset_id)
    assert finish(service.http, dataset_id)["status"] == "complete"
    before = vectors_by_id(service, dataset_id)
    system.delete_dir_contents("leaving")
    generate(service.http, dataset_id, force=True)
    end = finish(service.http, dataset_id)
    assert end["status"] == "error"
    assert "root_unavailable" in end["message"]
    assert vectors_by_id(service, dataset_id).keys() == before.keys()


def test_a_url_below_no_root_is_refused_as_a_folder_is(service: Service, s3_url: str):
    answers = [
        service.http.post("/datasets", json={"name": "n", "root": root})
        for root in ("s3://elsewhere", "s3://elsewhere/none", "https://example.org/x", "/etc")
    ]
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.json()["detail"] for answer in answers}) == 1
