"""Durable jobs: creation, claims with a fence, cancellation, progress."""

import threading

import pytest

from serve_app.errors import (
    DatasetNotFound,
    InvalidRequest,
    JobNotFound,
    JobRunning,
    NoEmbeddings,
    NothingRunning,
    ServiceError,
    StaleAttempt,
)
from serve_app.records import Block, ModelCard, Skip
from tests.invariants import fingerprint
from tests.unit.store.workbench import CARD, Workbench, block_of, source_files
from tests.whole_set import read_now


def test_a_created_job_waits_with_its_parameters(bench):
    dataset = bench.register(source_files(7))
    job = bench.jobs.create(dataset.id, "embed", model_name="m", force=True, params={"a": [1, "two"]})
    assert (job.status, job.phase, job.processed, job.total, job.attempt) == ("running", "queued", 0, 7, 0)
    assert bench.jobs.get(job.id) == job
    claim = bench.jobs.claim("r", holding=[], lease_s=30)
    assert (claim.attempt, claim.force, claim.params, claim.dataset) == (1, True, {"a": [1, "two"]}, dataset)
    assert claim.job.model_name == "m"


def test_of_fifty_racing_creates_exactly_one_wins(bench):
    dataset = bench.register(source_files(1))
    barrier = threading.Barrier(50)
    outcomes = []

    def create():
        barrier.wait()
        try:
            outcomes.append(("won", bench.jobs.create(dataset.id, "embed", model_name="m").id))
        except JobRunning as error:
            outcomes.append(("lost", error.detail))

    threads = [threading.Thread(target=create) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kind for kind, _ in outcomes) == ["lost"] * 49 + ["won"]
    assert len({job_id for _, job_id in outcomes}) == 1
    assert len(bench.jobs.all(limit=100)) == 1


def test_jobs_of_either_kind_exclude_each_other_and_other_datasets_do_not(bench):
    files = source_files(2)
    first, second = bench.register(files, name="first"), bench.register(files, name="second")
    bench.embed(first, files)
    job = bench.jobs.create(first.id, "reduce")
    with pytest.raises(JobRunning, match=job.id):
        bench.jobs.create(first.id, "embed", model_name="m")
    assert bench.jobs.create(second.id, "embed", model_name="m").status == "running"


def test_a_reduction_needs_vectors(bench):
    dataset = bench.register(source_files(2))
    with pytest.raises(NoEmbeddings, match="Generate embeddings first"):
        bench.jobs.create(dataset.id, "reduce")


def test_unknown_ids_are_named(bench):
    for call in (
        lambda: bench.jobs.create("nope", "embed", model_name="m"),
        lambda: bench.jobs.cancel("nope"),
        lambda: bench.jobs.skipped("nope", limit=1, cursor=None),
    ):
        with pytest.raises(DatasetNotFound, match="nope"):
            call()
    for call in (lambda: bench.jobs.get("nope"), lambda: bench.jobs.pending("nope", after=-1, limit=1)):
        with pytest.raises(JobNotFound, match="nope"):
            call()


def test_cancelling_ends_the_job_at_once_and_leaves_the_old_vectors_bit_for_bit(bench):
    files = source_files(6)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.reduce(dataset)
    with bench.database.read() as session:
        before = fingerprint(session, dataset.id)
    claim = bench.start(dataset, force=True)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:4], contents={"img/0.jpg": "new"}))
    job = bench.jobs.cancel(dataset.id)
    assert (job.status, job.phase, job.message) == ("cancelled", "cancelled", "Cancelled at 4 of 6")
    assert job.finished_at is not None
    with bench.database.read() as session:
        assert fingerprint(session, dataset.id) == before
        assert session.value("SELECT count(*) FROM embeddings_384") == 6
    bench.delete_retired()
    with bench.database.read() as session:
        assert session.value("SELECT count(*) FROM vectors_384") == 6
    with pytest.raises(NothingRunning, match="flowers"):
        bench.jobs.cancel(dataset.id)


@pytest.mark.parametrize("how", ["claimed anew", "cancelled", "failed", "deleted"])
def test_a_stale_attempt_is_refused_everywhere(bench, how):
    files = source_files(3)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    job_id, attempt = claim.job.id, claim.attempt
    if how == "claimed anew":
        bench.clock.now += 31
        assert bench.resume(job_id).attempt == attempt + 1
    elif how == "failed":
        bench.jobs.fail(job_id, attempt, "broken")
    else:
        bench.jobs.cancel(dataset.id)
        if how == "deleted":
            bench.datasets.delete(dataset.id)
    for call in (
        lambda: bench.jobs.renew(job_id, attempt, lease_s=30),
        lambda: bench.jobs.begin(job_id, attempt, CARD),
        lambda: bench.jobs.announce(job_id, attempt, phase="running", message="hello"),
        lambda: bench.jobs.fail(job_id, attempt, "late"),
        lambda: bench.vectors.plan(job_id, attempt, []),
        lambda: bench.vectors.put_block(job_id, attempt, 1, block_of(files)),
        lambda: bench.vectors.commit(job_id, attempt),
        lambda: bench.vectors.put_points(job_id, attempt, "any", block_of(files).vectors[:, :2].astype(float)),
    ):
        with pytest.raises(StaleAttempt):
            call()
    bench.jobs.release(job_id, attempt)
    with bench.database.read() as session:
        assert session.value("SELECT count(*) FROM vectors_384") == 0


def test_a_leased_job_is_nobody_elses_until_the_lease_runs_out(bench):
    dataset = bench.register(source_files(1))
    job = bench.jobs.create(dataset.id, "embed", model_name="m")
    assert bench.jobs.claim("a", holding=[], lease_s=30).attempt == 1
    assert bench.jobs.claim("b", holding=[], lease_s=30) is None
    bench.clock.now += 20
    bench.jobs.renew(job.id, 1, lease_s=30)
    bench.clock.now += 20
    assert bench.jobs.claim("b", holding=[], lease_s=30) is None
    bench.clock.now += 11
    assert bench.jobs.claim("b", holding=[], lease_s=30).attempt == 2


def test_a_runner_is_handed_its_own_job_again_only_when_it_does_not_hold_it(bench):
    dataset = bench.register(source_files(1))
    job = bench.jobs.create(dataset.id, "embed", model_name="m")
    bench.jobs.claim("a", holding=[], lease_s=30)
    assert bench.jobs.claim("a", holding=[job.id], lease_s=30) is None
    assert bench.jobs.claim("a", holding=[], lease_s=30).attempt == 2


def test_a_released_job_can_be_claimed_at_once_and_a_stale_release_does_nothing(bench):
    dataset = bench.register(source_files(1))
    job = bench.jobs.create(dataset.id, "embed", model_name="m")
    bench.jobs.claim("a", holding=[], lease_s=30)
    bench.jobs.release(job.id, 1)
    assert bench.jobs.claim("b", holding=[], lease_s=30).attempt == 2
    bench.jobs.release(job.id, 1)
    assert bench.jobs.claim("c", holding=[], lease_s=30) is None


def test_jobs_are_claimed_in_the_order_of_their_creation(bench):
    datasets = [bench.register(source_files(1), name=f"d{i}") for i in range(3)]
    jobs = [bench.jobs.create(dataset.id, "embed", model_name="m").id for dataset in datasets]
    claimed = [bench.jobs.claim("r", holding=[], lease_s=30) for _ in range(1)]
    claimed += [bench.jobs.claim("r", holding=jobs[:i], lease_s=30) for i in (1, 2)]
    assert [claim.job.id for claim in claimed] == jobs
    assert [job.id for job in bench.jobs.all(limit=2)] == jobs[:0:-1]


def test_a_job_survives_the_writer_and_is_free_again_without_its_stage_being_redone(path):
    files = source_files(5)
    bench = Workbench(path)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    skip = Skip(files[3].sample_id, files[3].file_name, "truncated", "the file ends too early")
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:2], skips=[skip]))
    bench.database.close()

    bench = Workbench(path)
    assert bench.jobs.get(claim.job.id).processed == 3
    again = bench.resume(claim.job.id)
    assert (again.attempt, again.job.processed, again.job.message) == (2, 3, "Resuming")
    pending = bench.jobs.pending(claim.job.id, after=-1, limit=10)
    assert [sample.sample_id for sample in pending] == [files[2].sample_id, files[4].sample_id]
    bench.vectors.put_block(claim.job.id, 2, 1, block_of([files[2], files[4]]))
    job = bench.vectors.commit(claim.job.id, 2)
    assert (job.status, job.processed, job.skipped) == ("complete", 5, 1)
    assert read_now(bench.vectors, dataset.id).sample_ids == [file.sample_id for file in files if file != files[3]]
    bench.database.close()


def test_pending_pages_join_to_what_is_neither_staged_nor_skipped(bench):
    files = source_files(50)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    settled = [file for i, file in enumerate(files) if i < 20 or i % 3 == 0]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(settled))
    expected = [file.sample_id for file in files if file not in settled]
    for limit in (1, 4, 100):
        collected, after = [], -1
        while page := bench.jobs.pending(claim.job.id, after=after, limit=limit):
            assert len(page) <= limit
            collected += page
            after = page[-1].ordinal
        assert [sample.sample_id for sample in collected] == expected
        assert [files[sample.ordinal].file_name for sample in collected] == [s.file_name for s in collected]


def test_everything_is_pending_before_a_job_begins(bench):
    dataset = bench.register(source_files(3))
    job = bench.jobs.create(dataset.id, "embed", model_name="m")
    assert len(bench.jobs.pending(job.id, after=-1, limit=10)) == 3


def test_a_resumed_job_of_another_space_starts_from_zero(bench):
    files = source_files(4)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    skip = Skip(files[3].sample_id, files[3].file_name, "empty", "the file is empty")
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:2], skips=[skip]))
    bench.jobs.release(claim.job.id, claim.attempt)
    again = bench.resume(claim.job.id, card=ModelCard("other", 1024, "space-b", "cpu", "fp32"))
    assert bench.jobs.get(again.job.id).processed == 0
    assert len(bench.jobs.pending(again.job.id, after=-1, limit=10)) == 4
    bench.vectors.put_block(again.job.id, again.attempt, 1, block_of(files, dimension=1024, space_key="space-b"))
    assert bench.vectors.commit(again.job.id, again.attempt).message == "Embedded 4 images"


def test_a_new_dimension_gets_its_tables_when_a_job_begins(bench):
    files = source_files(2)
    dataset = bench.register(files)
    bench.embed(dataset, files, card=ModelCard("tiny", 5, "space-5", "cpu", "fp32"))
    status = bench.vectors.status(dataset.id)
    assert (status.dimension, status.model_name, status.space_key) == (5, "tiny", "space-5")


@pytest.mark.parametrize("dimension", [0, -1, 10**6])
def test_a_dimension_out_of_range_is_refused(bench, dimension):
    dataset = bench.register(source_files(1))
    bench.jobs.create(dataset.id, "embed", model_name="m")
    claim = bench.jobs.claim("r", holding=[], lease_s=30)
    with pytest.raises(InvalidRequest, match="dimension"):
        bench.jobs.begin(claim.job.id, claim.attempt, ModelCard("m", dimension, "s", "cpu", "fp32"))


def test_announcements_are_read_and_count_in_seq(bench):
    dataset = bench.register(source_files(1))
    claim = bench.start(dataset)
    before = bench.jobs.get(claim.job.id)
    job = bench.jobs.announce(claim.job.id, claim.attempt, phase="fitting", message="Waiting for a GPU")
    assert (job.phase, job.message, job.seq) == ("fitting", "Waiting for a GPU", before.seq + 1)


def test_a_failed_job_says_why(bench):
    dataset = bench.register(source_files(1))
    claim = bench.start(dataset)
    job = bench.jobs.fail(claim.job.id, claim.attempt, "The model could not be loaded")
    assert (job.status, job.message) == ("error", "The model could not be loaded")
    assert bench.jobs.claim("r", holding=[], lease_s=30) is None


def test_latest_answers_for_each_key_in_order(bench):
    files = source_files(2)
    first, second = bench.register(files, name="first"), bench.register(files, name="second")
    bench.embed(first, files)
    newest, _ = bench.embed(first, files)
    reduced = bench.reduce(first)
    answers = bench.jobs.latest(
        [(second.id, "embed"), (first.id, "reduce"), (first.id, "embed"), ("nope", "embed"), (first.id, "embed")]
    )
    assert answers == [None, reduced, newest, None, newest]
    assert bench.jobs.latest([]) == []


def test_skips_of_the_last_embed_job_are_paged(bench):
    files = source_files(6)
    dataset = bench.register(files)
    assert bench.jobs.skipped(dataset.id, limit=5, cursor=None) == ([], None)
    claim = bench.start(dataset)
    skips = [Skip(file.sample_id, file.file_name, "empty", "the file is empty") for file in files[:3]]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of([], skips=skips[:2]))
    bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(files[3:], skips=skips[2:]))
    bench.vectors.commit(claim.job.id, claim.attempt)
    page, cursor = bench.jobs.skipped(dataset.id, limit=2, cursor=None)
    rest, end = bench.jobs.skipped(dataset.id, limit=2, cursor=cursor)
    assert (page + rest, end) == (skips, None)
    bench.start(dataset)
    assert bench.jobs.skipped(dataset.id, limit=5, cursor=None) == ([], None)


def test_processed_and_seq_only_grow(bench):
    files = source_files(9)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    seen = [bench.jobs.get(claim.job.id)]
    for number, start in enumerate(range(0, 9, 3), start=1):
        block = block_of(files[start : start + 3])
        seen.append(bench.vectors.put_block(claim.job.id, claim.attempt, number, block))
    seen.append(bench.vectors.commit(claim.job.id, claim.attempt))
    assert [job.processed for job in seen] == [0, 3, 6, 9, 9]
    assert [job.seq for job in seen] == sorted({job.seq for job in seen})
    assert seen[2].message == "Embedding 6 of 9"


def test_the_rate_comes_from_the_last_seconds_and_gives_the_time_left(bench):
    files = source_files(40)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    assert bench.jobs.get(claim.job.id).rate is None
    for number in range(1, 3):
        bench.clock.now += 2
        block = block_of(files[10 * (number - 1) : 10 * number])
        bench.vectors.put_block(claim.job.id, claim.attempt, number, block)
    job = bench.jobs.get(claim.job.id)
    assert (job.rate, job.eta_s) == (5.0, 4.0)
    bench.clock.now += 11
    assert bench.jobs.get(claim.job.id).rate is None


def test_a_request_that_fails_half_way_leaves_nothing(bench):
    files = source_files(2)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    bad = Block(
        [files[0].sample_id],
        block_of(files[:1]).vectors,
        block_of(files[:1]).stamps,
        skips=[Skip(files[1].sample_id, files[1].file_name, "empty", "lone \udcff surrogate")],
        space_key=CARD.space_key,
    )
    with pytest.raises(ServiceError):
        bench.vectors.put_block(claim.job.id, claim.attempt, 1, bad)
    assert bench.jobs.get(claim.job.id).processed == 0
    assert len(bench.jobs.pending(claim.job.id, after=-1, limit=5)) == 2


def test_no_lease_outlives_its_job(bench):
    files = source_files(2)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.reduce(dataset)
    assert bench.jobs.claim("runner", holding=[], lease_s=30) is None
    assert bench.jobs.leases._leases == {}
