"""What people register, over HTTP: found, or refused or left out with a word about it, and embedded as it is now."""

import io
import os
import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from serve_app.records import Block, Skip
from serve_app.sources.reading import Reader
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors
from tests.heic import HEIC
from tests.unit.api import work


async def register(client, path, **body):
    return await client.post("/datasets", json={"name": "new", "root": str(path), **body})


async def embed(client, services, dataset):
    """Embed what is not known, as a job does; returns the ids of the images that were read."""
    await client.post(f"/datasets/{dataset['id']}/embeddings/generate")
    claimed = await work.begin(services)
    card, job, root = services.embedder.model.card, claimed.job, claimed.dataset.root
    reader = Reader(services.settings)
    pending = await services.writer.ask(Jobs.pending, job.id, after=-1, limit=1000)
    stats = reader.examine(root, pending)
    observed = [replace(file, size_bytes=now[0], mtime_ns=now[1]) for file, now in zip(pending, stats, strict=True)]
    tasks = await services.writer.ask(Vectors.plan, job.id, claimed.attempt, observed)
    read = [reader.read(root, task, max_bytes=10**6) for task in tasks]
    outcomes = (await services.embedder.embed_images(job.model_name, [data for data, _ in read])).outcomes
    assert not any(isinstance(outcome, Skip) for outcome in outcomes)
    vectors = np.stack(outcomes) if outcomes else np.empty((0, card.dimension), np.float32)
    block = Block([task.sample_id for task in tasks], vectors, [stamp for _, stamp in read], space_key=card.space_key)
    await services.writer.ask(Vectors.put_block, job.id, claimed.attempt, 1, block)
    await services.writer.ask(Vectors.commit, job.id, claimed.attempt)
    return [task.sample_id for task in tasks]


def write_tar(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in images.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), zlib.crc32(data)
            tar.addfile(info, io.BytesIO(data))


def write_parquet(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = pa.array([{"bytes": data, "path": None} for data in images.values()])
    pq.write_table(pa.table({"image": structs}), path, compression="none")


def plain(colour):
    """A PNG whose size does not depend on its colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


RED, GREEN, BLUE = plain((250, 0, 0)), plain((0, 250, 0)), plain((0, 0, 250))


@pytest.mark.parametrize(
    ("name", "write", "others"),
    [("a.tar", write_tar, ["a.tar/y.png"]), ("a.parquet", write_parquet, ["a.parquet/0", "a.parquet/1"])],
)
async def test_other_images_in_a_file_of_equal_size_and_time_are_embedded(client, services, root, name, write, others):
    """They kept the vectors of the images whose places they took, although a rescan had seen them."""
    path = root / "held" / name
    write(path, {"x.png": RED, "y.png": GREEN})
    dataset = (await register(client, path.parent)).json()
    assert len(await embed(client, services, dataset)) == 2
    before = path.stat()
    image = f"/datasets/{dataset['id']}/samples/{others[-1]}/image"
    etag = (await client.get(image)).headers["etag"]

    write(path, {"x.png": RED, "y.png": BLUE})
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert (await client.post(f"/datasets/{dataset['id']}/rescan")).json()["changed"] == len(others)
    assert await embed(client, services, dataset) == others
    assert await embed(client, services, dataset) == []
    assert (await client.get(image, headers={"If-None-Match": etag})).content == BLUE


async def test_a_folder_of_telephone_photographs_is_shown(client, root):
    """It was a dataset of nothing at first, and of skips later."""
    (root / "phone").mkdir()
    (root / "phone" / "IMG_1.HEIC").write_bytes(HEIC)
    dataset = (await register(client, root / "phone")).json()
    assert (dataset["sample_count"], dataset["notices"]) == (1, [])
    photo = f"/datasets/{dataset['id']}/samples/IMG_1.HEIC"
    thumbnail = await client.get(f"{photo}/thumbnail")
    with Image.open(io.BytesIO(thumbnail.content)) as upright:
        assert (upright.format, upright.size) == ("JPEG", (48, 64))
    whole = await client.get(f"{photo}/image")
    assert (whole.headers["content-type"], whole.content) == ("image/heic", HEIC)


async def test_notices_stay_with_the_dataset_until_the_next_rescan(client, root):
    """Only the answer that made the listing had them, and who looked later saw a dataset without labels."""
    folder = root / "flowers"
    (folder / "manifest.csv").write_bytes(b"colour\nred\n")
    (folder / "c.svg").write_bytes(b"<svg/>")
    made = (await register(client, folder)).json()
    assert len(made["notices"]) == 2
    assert "manifest.csv" in made["notices"][0]
    assert "c.svg" in made["notices"][1]
    assert (await client.get(f"/datasets/{made['id']}")).json() == made
    assert (await client.get("/datasets")).json() == [made]

    (folder / "c.svg").unlink()
    change = (await client.post(f"/datasets/{made['id']}/rescan")).json()
    assert change["notices"] == made["notices"][:1]
    assert (await client.get(f"/datasets/{made['id']}")).json()["notices"] == made["notices"][:1]

    (folder / "manifest.csv").unlink()
    assert "notices" not in (await client.post(f"/datasets/{made['id']}/rescan")).json()
    assert (await client.get(f"/datasets/{made['id']}")).json()["notices"] == []


async def test_entries_that_are_named_twice_are_told_at_a_rescan_too(client, root):
    listed = root / "flowers" / "manifest.csv"
    listed.write_text("file_name\nrose/a.png\n")
    made = (await register(client, listed)).json()
    assert (made["sample_count"], made["notices"]) == (1, [])
    listed.write_text("file_name\nrose/a.png\nrose/a.png\n")
    change = (await client.post(f"/datasets/{made['id']}/rescan")).json()
    assert "1 entries name an image that an entry before them names" in change["notices"][0]
