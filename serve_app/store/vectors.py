"""Vectors: staging, reuse by content, the swap, coordinates, and bulk reads.

Letters: N rows, D dimension. Vectors of dimension 768 lie in `embeddings`, of others in
`embeddings_<dim>`; staged ones in `stage` and `stage_<dim>`.
"""

import numpy as np
from numpy.typing import NDArray

from serve_app.records import Block, EmbeddingStatus, FileTask, Job, ObservedFile, VectorSet
from serve_app.store.executor import write


class Vectors:
    """SQL over the embedding and stage tables."""

    @write
    def plan(self, job_id: str, attempt: int, observed: list[ObservedFile]) -> list[FileTask]:
        """Stage what is already known of these pending files and return what must be read.

        A file whose size and mtime equal those of its stored vector in the job's space is staged from it
        (`reused`). Of the others, in order of size, each carries the content hashes of stored or staged
        vectors of that space and size, whatever their dataset. With `force`, nothing is reused.
        Safe to repeat.

        Raises:
            StaleAttempt: the job is over or claimed anew.
        """
        raise NotImplementedError

    @write
    def put_block(self, job_id: str, attempt: int, block_no: int, block: Block) -> Job:
        """Stage a block and count it, in one transaction.

        Blocks of an attempt are numbered 1, 2, 3, … and sent one after another; a number already committed
        is answered without effect, so that a caller in doubt repeats the call. Vectors that are not finite
        or have zero norm are skipped as `nonfinite`. A `known` entry whose vector has meanwhile gone is
        not counted: the sample stays pending.

        Raises:
            StaleAttempt: the job is over or claimed anew.
        """
        raise NotImplementedError

    @write
    def commit(self, job_id: str, attempt: int) -> Job:
        """Swap the staged set in: one transaction replaces the dataset's vectors and ends the job.

        The job ends `error`, with the old vectors untouched, when no image could be embedded
        (`no_valid_images`) or when more than half of the files were gone (`root_unavailable`).
        Repeating a commit that took effect returns the finished job.

        Raises:
            StaleAttempt: the job is over otherwise, or claimed anew.
            Conflict: samples are still pending.
        """
        raise NotImplementedError

    @write
    def put_points(self, job_id: str, attempt: int, vectors_job_id: str, points: NDArray[np.float64]) -> Job:
        """Write (N, 2) coordinates to exactly the rows of `vectors_job_id`, in `read` order, and end the job.

        The job ends `error` when those vectors have been replaced meanwhile.

        Raises:
            StaleAttempt: the job is over or claimed anew.
        """
        raise NotImplementedError

    def status(self, dataset_id: str) -> EmbeddingStatus:
        """Which vectors and map the dataset has. Raises `DatasetNotFound`."""
        raise NotImplementedError

    def read(self, dataset_id: str) -> VectorSet:
        """All vectors of a dataset in sample order, on one snapshot.

        Raises:
            DatasetNotFound: no such dataset.
            NoEmbeddings: it has no vectors.
        """
        raise NotImplementedError

    def points(self, dataset_id: str, *, after: int, limit: int) -> tuple[bytes, int | None]:
        """A page of the map as one Arrow IPC stream, and the next `after` (None at the end).

        Columns: sample_id, x, y, file_name, label. Empty before any reduction.

        Raises:
            DatasetNotFound: no such dataset.
        """
        raise NotImplementedError

    def export(self, dataset_id: str, *, job_id: str, after: int, limit: int) -> tuple[bytes, int | None]:
        """A page of the dataset as one Arrow IPC stream, and the next `after` (None at the end).

        Columns: sample_id, file_name, label, model_name, vector (fixed-size list of float32), x, y.
        `after` is -1 at first.

        Raises:
            DatasetNotFound: no such dataset.
            NoEmbeddings: it has no vectors.
            Conflict: the vectors are no longer those of `job_id`.
        """
        raise NotImplementedError
