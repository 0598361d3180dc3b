"""The names, tags and buckets of our own metrics; Ray's exporters pass them on to Prometheus.

Ray adds the prefix `ray_` and tags of the process; Serve adds deployment, replica and application. No tag holds the
id of a job, dataset or image, because each value of a tag becomes a separate series that stays for ever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from ray.serve import metrics as of_replica
from ray.util import metrics as of_process

from serve_app.records import TERMINAL, Block, Claim, Job, StoreFigures

FAST_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
"""Bucket bounds; they separate healthy from slow disks at commits, and CPUs from GPUs at forward passes."""

FILL = [0.1, 0.25, 0.5, 0.75, 0.9, 1.0]


class ReplicaMetrics:
    """The metrics of a DinoV2 replica. The object must be made inside the replica."""

    def __init__(self, model_name: str, batch_images: int) -> None:
        self._batch_images = batch_images
        self._model = Path(model_name).name
        tag = ("model",)
        self._images = of_replica.Counter(
            "dino_images_total",
            "Images settled, by model and by what became of them",
            ("model", "status"),  # type: ignore[arg-type]  # Serve says tuple[str] and takes any tuple
        )
        self._fill = of_replica.Histogram(
            "dino_batch_fill", "Images of a forward pass over the most it may have", FILL, tag
        )
        self._decode_s = of_replica.Histogram(
            "dino_decode_seconds", "Reading, hashing and decoding the images of one call", FAST_S, tag
        )
        self._forward_s = of_replica.Histogram("dino_forward_seconds", "One forward pass", FAST_S, tag)

    def settled(self, block: Block) -> None:
        """Count the files of a call as `embedded`, `known` (their content had a vector) or `skipped`."""
        self.count(embedded=len(block.sample_ids), known=len(block.known), skipped=len(block.skips))

    def count(self, **images: int) -> None:
        """Count images by status."""
        for status, n_images in images.items():
            if n_images:
                self._images.inc(n_images, {"model": self._model, "status": status})

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Measure the time to read and decode the images of one call."""
        began = perf_counter()
        yield
        self._decode_s.observe(perf_counter() - began, {"model": self._model})

    @contextmanager
    def forward(self, n_images: int) -> Iterator[None]:
        """Measure the time and the fill of one forward pass over `n_images` images."""
        began = perf_counter()
        yield
        self._forward_s.observe(perf_counter() - began, {"model": self._model})
        self._fill.observe(n_images / self._batch_images, {"model": self._model})


class WriterMetrics:
    """The metrics of the writer."""

    def __init__(self) -> None:
        self._rows = of_process.Counter("writer_rows_total", "Samples committed, by what became of them", ("outcome",))
        self._write_s = of_process.Histogram(
            "writer_commit_seconds", "One write, from its begin to its commit", FAST_S, ("method",)
        )
        self._queue_rows = of_process.Gauge("writer_queue_rows", "Samples of blocks that wait for their commit")
        self._epoch = of_process.Gauge("writer_epoch", "How many writers have opened the database so far")
        self._jobs = of_process.Gauge("jobs", "Jobs by state", ("state",))
        self._file_bytes = of_process.Gauge("writer_file_bytes", "The database file and its write-ahead log")
        self._n_queued = 0
        self._counted: dict[str, dict[str, int]] = {}

    @contextmanager
    def queued(self, n_rows: int) -> Iterator[None]:
        """Count rows as waiting while the block runs; only the event loop may call this."""
        self._n_queued += n_rows
        self._queue_rows.set(self._n_queued)
        try:
            yield
        finally:
            self._n_queued -= n_rows
            self._queue_rows.set(self._n_queued)

    def wrote(self, method: str, seconds: float, result: object) -> None:
        """Record a committed write; only the writer thread may call this.

        Rows are counted from the totals of the job that a write returns, so that a repeated block counts once. The
        count of a job begins with the first state that this process sees.
        """
        self._write_s.observe(seconds, {"method": method})
        job = result.job if isinstance(result, Claim) else result
        if not isinstance(job, Job) or job.kind not in ("embed", "import"):
            return
        now = {
            "embedded": job.processed - job.reused - job.skipped,
            "reused": job.reused,
            "skipped": job.skipped,
        }
        before = self._counted.get(job.id, now)
        for outcome, total in now.items():
            if total > before[outcome]:
                self._rows.inc(total - before[outcome], {"outcome": outcome})
        if job.status in TERMINAL:
            self._counted.pop(job.id, None)
        else:
            self._counted[job.id] = now

    def show(self, figures: StoreFigures) -> None:
        """Publish the figures of the database."""
        self._epoch.set(figures.writer_epoch)
        self._file_bytes.set(figures.file_bytes)
        for state, n_jobs in figures.jobs.items():
            self._jobs.set(n_jobs, {"state": state})
