"""A store on a temporary file, and the steps that tests of it repeat."""

import hashlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from serve_app.errors import StoreUnavailable
from serve_app.records import Block, FileStamp, ModelCard, SourceFile
from serve_app.store.database import Database
from serve_app.store.datasets import Datasets
from serve_app.store.job_samples import JobSamples
from serve_app.store.jobs import Jobs
from serve_app.store.listings import Listings
from serve_app.store.retired import Retired
from serve_app.store.running_jobs import Pace
from serve_app.store.vectors import Vectors

DIMENSION = 384
CARD = ModelCard("dinov2-small", DIMENSION, "space-a", "cpu", "fp32")


class Clock:
    """A monotonic clock that tests turn by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def source_files(n, *, prefix="img", size=100, mtime=1):
    """`n` listed files; file i has `size + i` bytes."""
    return [SourceFile(f"{prefix}/{i}.jpg", f"{prefix}/{i}.jpg", f"label{i % 3}", size + i, mtime) for i in range(n)]


def vector_of(text, dimension=DIMENSION):
    """A vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)


@cache
def _blank():
    """The bytes of a database without rows, made once: to make one costs as much as most tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "blank.duckdb"
        database = Database(path)
        with database.read():
            pass
        database.close()
        return path.read_bytes()


def lay_blank(path):
    """Put a database without rows where there is none yet."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(_blank())


@cache
def content_of(fill):
    """The bytes of a database once `fill(bench)` has filled it, made once."""
    with TemporaryDirectory() as folder:
        bench = Workbench(Path(folder) / "filled.duckdb")
        fill(bench)
        bench.database.close()
        return bench.database.path.read_bytes()


class Workbench:
    """The parts of a store over one database file."""

    def __init__(self, path, clock=None):
        self.clock = clock or Clock()
        lay_blank(path)
        self.database = Database(path, clock=self.clock)
        pace = Pace(self.clock)
        self.datasets = Datasets(self.database)
        self.listings = Listings(self.database, pace)
        self.jobs = Jobs(self.database, pace, self.clock)
        self.vectors = Vectors(self.database, pace, JobSamples())
        self.retired = Retired(self.database)

    def delete_retired(self):
        """What the executor does between writes, to its end."""
        while self.retired.step():
            pass

    def scan(self, files):
        """A scan of these files, in one page."""
        scan_id = self.datasets.begin_scan()
        self.datasets.put_scan(scan_id, 0, files)
        return scan_id

    def register(self, files, name="flowers"):
        """A dataset of these files."""
        return self.datasets.register(
            self.scan(files), name=name, root="/roots/flowers", format="folder", annotations=None
        )

    def start(self, dataset, *, card=CARD, force=False):
        """The claim of a new embed job that has begun."""
        job = self.jobs.create(dataset.id, "embed", model_name=card.name, force=force)
        return self.resume(job.id, card=card)

    def resume(self, job_id, *, card=CARD):
        """A claim of the oldest free job, which must be this one, begun."""
        claim = self.jobs.claim("runner", holding=[], lease_s=30)
        assert claim.job.id == job_id
        self.jobs.begin(job_id, claim.attempt, card)
        return claim

    def observe(self, claim, files):
        """The pending ones of these files, as they lie on disk."""
        pending = {sample.sample_id for sample in self.jobs.pending(claim.job.id, after=-1, limit=10_000)}
        return [file for file in files if file.sample_id in pending]

    def plan(self, claim, files):
        """Plan the pending ones of these files."""
        return self.vectors.plan(claim.job.id, claim.attempt, self.observe(claim, files))

    def embed(self, dataset, files, *, card=CARD, force=False, contents=None):
        """A whole embed job; returns it and the tasks that had to be read."""
        claim = self.start(dataset, card=card, force=force)
        tasks = self.plan(claim, files)
        block = block_of(
            files,
            [task.sample_id for task in tasks],
            dimension=card.dimension,
            contents=contents,
            space_key=card.space_key,
        )
        self.vectors.put_block(claim.job.id, claim.attempt, 1, block)
        return self.vectors.commit(claim.job.id, claim.attempt), tasks

    def reduce(self, dataset, points=None, *, model=None):
        """A whole reduce job on the set of a model, or on the one made last."""
        vectors = self.vectors.current(dataset.id, model)
        job = self.jobs.create(dataset.id, "reduce", model_name=model)
        claim = self.jobs.claim("runner", holding=[], lease_s=30)
        points = points if points is not None else np.arange(2.0 * job.total).reshape(-1, 2)
        return self.vectors.put_points(job.id, claim.attempt, vectors.job_id, points)


def block_of(files, sample_ids=None, *, dimension=DIMENSION, contents=None, skips=(), space_key=CARD.space_key):
    """A block that embeds these samples; a file's content is its name unless `contents` says otherwise."""
    chosen = [file for file in files if sample_ids is None or file.sample_id in sample_ids]
    texts = [(contents or {}).get(file.sample_id, file.sample_id) for file in chosen]
    return Block(
        sample_ids=[file.sample_id for file in chosen],
        vectors=np.array([vector_of(text, dimension) for text in texts], np.float32).reshape(-1, dimension),
        stamps=[stamp_of(file, text) for file, text in zip(chosen, texts, strict=True)],
        skips=list(skips),
        space_key=space_key,
    )


def stamp_of(file, content=None):
    """What reading the file gives; its content is its name unless said otherwise."""
    text = file.sample_id if content is None else content
    return FileStamp(hashlib.sha256(text.encode()).hexdigest(), file.size_bytes, file.mtime_ns)


def listing(folder):
    """The names of what a folder holds."""
    return sorted(path.name for path in folder.iterdir())


def refusal(database):
    """What a database that cannot be used says."""
    try:
        with database.read():
            raise AssertionError("the database can be used")
    except StoreUnavailable as error:
        return error.detail
