"""The job loop's part, done by hand, so that a test decides what has happened when it asks."""

from dataclasses import replace

import numpy as np

from serve_app.errors import RefusedImage
from serve_app.images.decode import header_of
from serve_app.records import Block, Skip
from serve_app.sources.files import read_file
from serve_app.store.jobs import Jobs
from serve_app.store.vectors import Vectors


async def claim(services):
    """Claim the one running job."""
    claimed = await services.writer.ask(Jobs.claim, "test", holding=[], lease_s=60)
    assert claimed is not None
    return claimed


async def begin(services):
    """Claim an embed job and tie it to the fake's space."""
    claimed = await claim(services)
    assert claimed.job.kind == "embed"
    await services.writer.ask(Jobs.begin, claimed.job.id, claimed.attempt, services.embedder.model.card)
    return claimed


async def stage(services, claimed, *, block_no=1, limit=1000):
    """Embed up to `limit` pending files and commit them as one block; returns the job."""
    pending = await services.writer.ask(Jobs.pending, claimed.job.id, after=-1, limit=limit)
    observed = [replace(file, size_bytes=-1, mtime_ns=-1) for file in pending]
    tasks = await services.writer.ask(Vectors.plan, claimed.job.id, claimed.attempt, observed)
    ids, vectors, stamps, skips = [], [], [], []
    for task in tasks:
        try:
            data, stamp = read_file(claimed.dataset.root, task.file_name, max_bytes=10**6)
        except RefusedImage as error:
            skips.append(Skip.of(error, task.sample_id, task.file_name))
            continue
        [vector] = (await services.embedder.embed_images(claimed.job.model_name, [data])).outcomes
        if isinstance(vector, Skip):
            skips.append(Skip(task.sample_id, task.file_name, vector.reason, vector.detail))
        else:
            ids.append(task.sample_id)
            vectors.append(vector)
            header = header_of(data)
            stamps.append(replace(stamp, **(header._asdict() if header else {})))
    stacked = np.stack(vectors) if vectors else np.empty((0, services.embedder.model.card.dimension), np.float32)
    block = Block(ids, stacked, stamps, skips=skips, space_key=services.embedder.model.card.space_key)
    return await services.writer.ask(Vectors.put_block, claimed.job.id, claimed.attempt, block_no, block)


async def embed(services):
    """Carry the running embed job to its end."""
    claimed = await begin(services)
    await stage(services, claimed)
    return await services.writer.ask(Vectors.commit, claimed.job.id, claimed.attempt)


async def reduce(services):
    """Carry the running reduction to its end: the i-th sample gets the point (i, -i)."""
    claimed = await claim(services)
    stored = await services.writer.ask(Vectors.current, claimed.dataset.id, claimed.job.model_name)
    numbers = np.arange(stored.count, dtype=np.float64)
    points = np.stack([numbers, -numbers], axis=1)
    return await services.writer.ask(Vectors.put_points, claimed.job.id, claimed.attempt, stored.job_id, points)
