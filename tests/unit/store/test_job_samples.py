"""The index of a job's samples: the answers of SQL, and none that outlives what it was true of."""

from contextlib import suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.records import SourceFile
from serve_app.store import job_rows, job_samples
from serve_app.store.job_samples import JobSamples, SampleIndex
from tests.unit.store.workbench import block_of, source_files


@pytest.fixture
def reads(monkeypatch):
    """How often an index was read from the database."""
    found = []
    read = SampleIndex.read.__func__
    monkeypatch.setattr(SampleIndex, "read", classmethod(lambda kind, *args: found.append(1) or read(kind, *args)))
    return found


def index_of(bench, claim, key_column="sample_id"):
    with bench.database.read() as session:
        return SampleIndex.read(session, job_rows.load(session, claim.job.id), key_column)


@pytest.mark.parametrize("page_rows", [1, 3, 100])
def test_keys_find_every_sample_that_has_them_in_the_order_of_the_dataset(bench, monkeypatch, page_rows):
    monkeypatch.setattr(job_samples, "PAGE_ROWS", page_rows)
    files = [SourceFile(f"{i}", f"{i % 4}.jpg", None, 100, 1) for i in range(10)]
    claim = bench.start(bench.register(files))
    bench.register(source_files(10), name="another")
    index = index_of(bench, claim, "file_name")
    with bench.database.read() as session:
        rows = session.q("SELECT file_name, sample_id, ordinal FROM samples WHERE file_name IN ('3.jpg', '0.jpg')")
        found = index.find(session, ["3.jpg", "img/1.jpg", "0.jpg", "3.jpg", ""])
        assert index.find(session, []) == index.find(session, ["nothing"]) == []
    assert [(match.key, match.sample_id, match.ordinal) for match in found] == sorted(rows, key=lambda row: row[2])
    assert not any(match.is_settled for match in found)


@given(collisions=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_names_of_one_hash_are_told_apart(collisions):
    class Row:
        id = dataset_id = "d"
        attempt = last_block = embedded = reused = skipped = dimension = scan_no = 0

    class Rows:
        """Answers what DuckDB would, if names hashed to these numbers."""

        def bind(self, name, table):
            self.keys = table.column("key").to_pylist()

        def arrow(self, sql):
            return pa.table({"hash": np.array([collisions[int(key)] for key in self.keys], np.uint64)})

        def q(self, sql, dataset_id, first, last):
            return [(key, key, key, int(key)) for key in self.keys if first <= int(key) <= last]

    index = SampleIndex("sample_id", Row, np.array(collisions, np.uint64), np.zeros(6, bool))
    assert [match.ordinal for match in index.find(Rows(), ["4", "1"])] == [1, 4]


def test_an_index_is_read_once_a_job_and_knows_what_was_settled(bench, reads):
    files = source_files(6)
    claim = bench.start(bench.register(files))
    for block_no, file in enumerate(files, start=1):
        bench.vectors.put_block(claim.job.id, claim.attempt, block_no, block_of(files, [file.sample_id]))
    again = bench.vectors.put_block(claim.job.id, claim.attempt, 7, block_of(files))
    assert (again.processed, len(reads)) == (6, 1)
    assert bench.vectors.commit(claim.job.id, claim.attempt).status == "complete"


def test_an_index_is_read_anew_after_a_transaction_that_failed(bench, reads, monkeypatch):
    files = source_files(4)
    claim = bench.start(bench.register(files))
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files, [files[0].sample_id]))
    with monkeypatch.context() as broken, suppress(ZeroDivisionError):
        broken.setattr(job_samples.SampleIndex, "settle", lambda *_: 1 / 0)
        bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(files, [files[1].sample_id]))
    done = bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(files))
    assert (done.processed, len(reads)) == (4, 2)


def test_the_next_attempt_reads_what_the_last_one_settled(bench, reads):
    files = source_files(4)
    claim = bench.start(bench.register(files))
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files, [files[0].sample_id]))
    bench.clock.now += 60
    claim = bench.resume(claim.job.id)
    index = index_of(bench, claim)
    assert index.is_settled.tolist() == [True, False, False, False]
    done = bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files))
    assert (done.processed, len(reads)) == (4, 3)


def test_indexes_of_many_jobs_stay_within_their_memory(bench, monkeypatch):
    datasets = [bench.register(source_files(9), name=f"{n}") for n in range(3)]
    jobs = [bench.jobs.create(dataset.id, "embed", model_name="any", force=False) for dataset in datasets]
    samples = JobSamples()
    with bench.database.read() as session:
        rows = [job_rows.load(session, job.id) for job in jobs]
        monkeypatch.setattr(job_samples, "MAX_BYTES", 2 * SampleIndex.read(session, rows[0], "sample_id").n_bytes)
        for row in [*rows, rows[1]]:
            with samples.of(row.id) as borrowed:
                borrowed.index(session, row)
                borrowed.keep(row)
    assert list(samples._indexes) == [rows[2].id, rows[1].id]
