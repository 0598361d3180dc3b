"""Vectors: staging, reuse by content, the swap, points of the map, and bulk reads.

N is the number of rows, D the dimension. The table `vectors_<dim>` holds staged and current vectors under the jobs
that made them, and `sets` names the jobs whose vectors are current.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import Conflict, NotFound
from serve_app.records import Block, EmbeddingStatus, Job, Layout, SourceFile, VectorSet
from serve_app.store import blocks, filtering, job_rows, making, readout, sets, staging, swap
from serve_app.store.datasets import require_dataset
from serve_app.store.job_rows import JobRow
from serve_app.store.job_samples import JobSamples
from serve_app.store.kept_places import KeptPlaces
from serve_app.store.methods import cached, require_limit, write
from serve_app.store.running_jobs import Pace
from serve_app.store.session import Session
from serve_app.store.sets import Current
from serve_app.store.staging import Space

if TYPE_CHECKING:  # callers in other processes name these methods and do not load DuckDB
    from serve_app.store.database import Database


class Vectors:
    """SQL over the tables of vectors and points."""

    def __init__(self, database: "Database", pace: Pace, samples: JobSamples) -> None:
        self._database = database
        self._pace = pace
        self._samples = samples
        self._places = KeptPlaces(database.answers)

    @write
    def plan(self, job_id: str, attempt: int, observed: list[SourceFile]) -> list[SourceFile]:
        """Stage the vectors that are known for these pending files, and return the files that must be read.

        If a file's size and mtime equal those of its stored vector in the job's space, that vector is staged
        (`reused`). The other files are returned in order of size, each with the content hashes of all stored or
        staged vectors of that space and size, of any dataset. If more than `MAX_KNOWN_HASHES` contents share the
        size, a file gets only the hash of its own stored vector. With `force`, nothing is reused. Settled samples
        and samples of other datasets are left out, so the call is safe to repeat.

        Raises:
            StaleAttempt: the job is over, or another attempt has claimed it.
            Conflict: the job has no vector space yet; `Jobs.begin` gives it one.
        """
        with self._samples.of(job_id) as samples, self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            space = _require_space(row)
            by_id = {file.sample_id: file for file in observed}
            index = samples.index(session, row)
            pending = {match.sample_id: match for match in index.find(session, by_id) if not match.is_settled}
            files = [file for file in by_id.values() if file.sample_id in pending]
            samples.keep(row)
            if row.force:
                return sorted(files, key=lambda file: file.size_bytes)
            reused = staging.stage_unchanged(session, space, files) if files else set()
            if reused:
                row = blocks.advance(session, row, block_no=row.last_block, reused=len(reused))
                index.settle([pending[sample_id] for sample_id in reused])
                samples.keep(row)
            remaining = staging.to_read(session, space, [file for file in files if file.sample_id not in reused])
        if reused:
            self._pace.note(job_id, row.processed)
        return remaining

    @write
    def put_block(self, job_id: str, attempt: int, block_no: int, block: Block) -> Job:
        """Stage and count a block in one transaction.

        A caller numbers the blocks of an attempt 1, 2, 3, … and sends one after another. A committed number
        has no effect, so a caller that is in doubt repeats the call. Vectors that are not finite or have zero
        norm are skipped as `nonfinite`. If the vector of a `known` entry has disappeared meanwhile, its sample
        stays pending and is not counted. Settled samples and samples of other datasets are ignored.

        Raises:
            StaleAttempt: the job is over, or another attempt has claimed it.
            Conflict: an earlier block is missing, or the job has no vector space yet.
            InvalidRequest: the parts of the block do not match, or the vectors have another dimension.
            ModelReplaced: the vectors belong to another space than the job's.
        """
        with self._samples.of(job_id) as samples, self._database.transaction() as session:
            row = job_rows.guard(session, job_id, attempt)
            if job_rows.has_block(row, block_no):
                return job_rows.public(row, self._pace)
            space = _require_space(row)
            blocks.require_shape(block, row)
            row = blocks.put(session, row, space, block, block_no, samples)
        self._pace.note(job_id, row.processed)
        return job_rows.public(row, self._pace)

    @write
    def commit(self, job_id: str, attempt: int) -> Job:
        """Make the staged vectors the dataset's set of their model and end the job; the transaction moves no row.

        The job ends as `error` and the old vectors stay when the staged set is not acceptable, for example when
        no image could be embedded (`no_valid_images`) or more than half of the files are gone
        (`root_unavailable`). Repeating a commit that took effect returns the finished job.

        Raises:
            StaleAttempt: the job ended in another way, or another attempt has claimed it.
            Conflict: some samples are still pending.
        """
        with self._database.transaction() as session:
            done = _finished_by(session, job_id, attempt)
            if done is not None:
                return job_rows.public(done, self._pace)
            row = job_rows.guard(session, job_id, attempt)
            _require_space(row)
            row = swap.commit(session, row)
        self._pace.stop(job_id)
        self._samples.drop(job_id)
        return job_rows.public(row, self._pace)

    @write
    def put_points(self, job_id: str, attempt: int, vectors_job_id: str, layout: Layout | NDArray[np.float64]) -> Job:
        """Make points the map of the vectors of `vectors_job_id`, and end the job; an (N, 2) array is a whole layout.

        The job ends as `error` when those vectors have been replaced meanwhile. Repeating a call that took
        effect returns the finished job.

        Raises:
            StaleAttempt: the job is over, or another attempt has claimed it.
            InvalidRequest: the points are not (N, 2) or not finite, or there is another number of contents.
        """
        layout = layout if isinstance(layout, Layout) else Layout(layout)
        with self._database.transaction() as session:
            done = _finished_by(session, job_id, attempt)
            if done is not None:
                return job_rows.public(done, self._pace)
            row = job_rows.guard(session, job_id, attempt)
            row = swap.put_points(session, row, vectors_job_id, layout)
        self._pace.stop(job_id)
        return job_rows.public(row, self._pace)

    @write
    def delete(self, dataset_id: str, model: str) -> None:
        """Delete the dataset's set of a model with its map; other sets stay.

        Raises:
            DatasetNotFound: no such dataset.
            NotFound: the dataset has no set of this model.
            JobRunning: a job of the dataset is running; the message is its id.
        """
        with self._database.transaction() as session:
            require_dataset(session, dataset_id)
            job_rows.require_idle(session, dataset_id)
            if sets.current(session, dataset_id, model) is None:
                raise NotFound(f"the dataset has no embeddings of {model!r}")
            sets.retire_of(session, dataset_id, model)

    @cached
    def status(self, dataset_id: str, model: str | None = None) -> EmbeddingStatus:
        """The state of the dataset's set of a model, or of the one made last, and what sets there are.

        Raises:
            DatasetNotFound: no such dataset.
        """
        with self._database.read() as session:
            dataset = require_dataset(session, dataset_id)
            found = sets.of_dataset(session, dataset_id)
            current = sets.chosen(found, model)
            made = None if current is None or not current.placed_count else making.of_job(session, current.map_job_id)
        return EmbeddingStatus(
            dataset_id=dataset_id,
            has_embeddings=current is not None and current.vector_count > 0,
            embedding_count=current.vector_count if current else 0,
            model_name=current.model_name if current else None,
            dimension=current.dimension if current else None,
            space_key=current.space_key if current else None,
            job_id=current.job_id if current else None,
            has_reduction=current is not None and current.placed_count > 0,
            sample_count=dataset.sample_count,
            map=made,
            sets=[now.status for now in found],
        )

    @cached
    def current(self, dataset_id: str, model: str | None = None) -> VectorSet:
        """The version of a set that readers get now: of this model, or the set made last if none is named.

        Raises:
            DatasetNotFound: no such dataset.
            NoEmbeddings: the dataset has no such vectors.
        """
        with self._database.read() as session:
            return _require_vectors(session, dataset_id, model).public

    def versions(self, dataset_id: str) -> list[str]:
        """The versions of all of the dataset's sets; none for an unknown dataset."""
        with self._database.read() as session:
            return [now.public.version for now in sets.of_dataset(session, dataset_id)]

    def names(self, dataset_id: str, *, version: str, after: int, limit: int) -> tuple[bytes, int | None]:
        """A page of the samples, in sample order, as one Arrow IPC stream, and the next `after` (None at the end).

        The columns are sample_id, file_name, label; samples without a vector are there too. `after` is -1 for the
        first page.

        Raises:
            DatasetNotFound: no such dataset.
            NoEmbeddings: the dataset has no vectors.
            Conflict: the vectors or samples are of another version now.
            InvalidRequest: the limit is not positive.
        """
        require_limit(limit)
        with self._database.read() as session:
            return readout.names_page(session, _require_version(session, dataset_id, version), after, limit)

    def rows(self, dataset_id: str, *, version: str, after: int, limit: int) -> tuple[bytes, int | None]:
        """A page of the set, in the order of storage, as one Arrow IPC stream, and the next `after` (None at the end).

        The columns are sample_id, content_hash, vector (fixed-size list of float32). Vectors of samples that a
        rescan removed are there too. `after` is -1 for the first page. A checkpoint between two pages may move
        rows: a reader makes sure that it got each of the set's vectors once.

        Raises:
            DatasetNotFound, NoEmbeddings, Conflict, InvalidRequest: as `names`.
        """
        require_limit(limit)
        with self._database.read() as session:
            return readout.rows_page(session, _require_version(session, dataset_id, version), after, limit)

    def matching(self, dataset_id: str, *, version: str, where: str) -> bytes:
        """Which samples a filter chooses: one bit for each in sample order, those without a vector included.

        The first sample's bit is the highest of the first byte, as `numpy.packbits` has it; a million samples take
        125 kB.

        Raises:
            DatasetNotFound, NoEmbeddings, Conflict: as `names`.
            InvalidFilter: `where` is no filter over the dataset's columns.
        """
        with self._database.read() as session:
            current = _require_version(session, dataset_id, version)
            only = filtering.choose(session, dataset_id, where, model=current.model_name)
            return readout.matching(session, current, only)

    def values(self, dataset_id: str, *, version: str, after: int, limit: int, column: str) -> tuple[bytes, int | None]:
        """A page of a column as one Arrow IPC stream of `ordinal` and `value`, and the next `after` (None at the end).

        Samples without a value are left out; those without a vector are not. `after` is -1 for the first page.

        Raises:
            DatasetNotFound, NoEmbeddings, Conflict, InvalidRequest: as `names`.
            InvalidFilter: the dataset has no such column.
        """
        require_limit(limit)
        with self._database.read() as session:
            current = _require_version(session, dataset_id, version)
            found = filtering.require_valued(session, dataset_id, column)
            return readout.values_page(session, current, found, after, limit)

    def files(self, dataset_id: str, *, version: str, after: int, limit: int) -> tuple[bytes, int | None]:
        """A page of what is known of files as one Arrow IPC stream, and the next `after` (None at the end).

        The columns are ordinal, pixels (null if unknown), bytes and mtime_ns (-1 if unknown). `after` is -1 for the
        first page.

        Raises:
            DatasetNotFound, NoEmbeddings, Conflict, InvalidRequest: as `names`.
        """
        require_limit(limit)
        with self._database.read() as session:
            return readout.files_page(session, _require_version(session, dataset_id, version), after, limit)

    def points(
        self, dataset_id: str, *, after: str | None, limit: int, where: str | None = None, model: str | None = None
    ) -> tuple[bytes, str | None]:
        """A page of the map as one Arrow IPC stream, and the next `after` (None at the end).

        The map is that of the set of `model`, or of the set made last. The columns are sample_id, x, y, file_name,
        label. The map is empty before the first reduction. `after` is None for the first page.

        Raises:
            DatasetNotFound: no such dataset.
            NoEmbeddings: the dataset has sets, and none of this model.
            Conflict: the vectors, points or samples have changed since the previous page.
            InvalidRequest: the limit is not positive, or `after` is malformed.
            InvalidFilter: `where` is no filter over the dataset's columns.
        """
        require_limit(limit)
        with self._database.read() as session:
            require_dataset(session, dataset_id)
            found = sets.of_dataset(session, dataset_id)
            current = sets.require(session, dataset_id, model) if found else None
            is_empty = current is None or not current.placed_count
            if is_empty and after is not None:
                raise Conflict(readout.MAP_IS_NEW)
            only = filtering.choose(session, dataset_id, where, model=model)
            if current is None or not current.placed_count:
                return readout.no_points(), None
            return readout.points_page(session, current, after, limit, only)

    def export(
        self, dataset_id: str, *, version: str, after: int, limit: int, where: str | None = None
    ) -> tuple[bytes, int | None]:
        """A page of the dataset as one Arrow IPC stream, and the next `after` (None at the end).

        The columns are sample_id, file_name, label, model_name, vector (fixed-size list of float32), x, y.
        `after` is -1 for the first page.

        Raises:
            DatasetNotFound: no such dataset.
            NoEmbeddings: the dataset has no vectors.
            Conflict: the vectors or the samples are no longer those of `version`.
            InvalidRequest: the limit is not positive.
            InvalidFilter: `where` is no filter over the dataset's columns.
        """
        require_limit(limit)
        quiet = self._database.answers.quiet()
        with self._database.read() as session:
            current = _require_version(session, dataset_id, version)
            if where is None:
                page = self._places.of(session, current, after, limit, quiet)
            else:
                model, span = current.model_name, (after, after + limit)
                only = filtering.choose(session, dataset_id, where, model=model, page=span)
                page = readout.places(session, current, after, limit, only)
            return readout.export_page(session, current, page, after=after, limit=limit)


def _require_space(row: JobRow) -> Space:
    space = Space.of(row)
    if space is None:
        raise Conflict(f"job {row.id} has no vector space yet")
    return space


def _require_vectors(session: Session, dataset_id: str, model: str | None = None) -> Current:
    require_dataset(session, dataset_id)
    return sets.require(session, dataset_id, model)


def _require_version(session: Session, dataset_id: str, version: str) -> Current:
    _require_vectors(session, dataset_id)
    current = sets.of_version(session, dataset_id, version)
    if current is None:
        raise Conflict("The vectors were replaced or the dataset rescanned while they were read; start it again.")
    return current


def _finished_by(session: Session, job_id: str, attempt: int) -> JobRow | None:
    """The job if this attempt's own commit ended it, so that a repeated call gets the answer that was lost."""
    row = session.row(f"SELECT {job_rows.COLUMNS} FROM jobs WHERE id = ? AND attempt = ?", job_id, attempt)
    found = None if row is None else JobRow(*row)
    if found is not None and (found.status == "complete" or (found.status == "error" and found.reason is not None)):
        return found
    return None
