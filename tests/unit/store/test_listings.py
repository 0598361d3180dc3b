"""Registrations and rescans as jobs: what is seen of them before, at and after their end."""

import pytest

from serve_app.errors import Conflict, DatasetNotFound, JobRunning, NameTaken, StaleAttempt
from serve_app.records import ScanChange
from serve_app.store.scans import Listed, table_of
from tests.unit.store.workbench import Workbench, source_files

FILES = source_files(7)
FOUND = Listed("/roots/flowers", "folder", None, notices=("left out: one",))


def create(bench, name="flowers"):
    return bench.listings.create(name=name, root="/roots/flowers", format="auto", annotations=None)


def claim(bench):
    return bench.jobs.claim("runner", holding=[], lease_s=30)


def put(bench, claimed, page, files, n_listed):
    return bench.listings.put(claimed.job.id, claimed.attempt, page, table_of(files), n_listed=n_listed)


def n_listed(bench):
    with bench.database.read() as session:
        return session.value("SELECT count(*) FROM scan_files")


def test_a_registration_is_seen_whole_or_not_at_all(bench):
    job = create(bench)
    claimed = claim(bench)
    assert (claimed.dataset.id, claimed.dataset.root, claimed.params["format"]) == (
        job.dataset_id,
        "/roots/flowers",
        "auto",
    )
    bench.listings.begin(job.id, claimed.attempt)
    assert put(bench, claimed, 1, FILES[:4], 4).processed == 4
    state = put(bench, claimed, 2, FILES[4:], 7)
    assert (state.processed, state.total, state.message, state.eta_s) == (7, 0, "Listed 7 files", None)
    assert bench.datasets.all() == []
    with pytest.raises(DatasetNotFound):
        bench.datasets.get(job.dataset_id)

    ended = bench.listings.commit(job.id, claimed.attempt, FOUND)
    assert (ended.status, ended.processed, ended.total) == ("complete", 7, 7)
    dataset = bench.datasets.get(job.dataset_id)
    assert (dataset.name, dataset.sample_count, dataset.notices) == ("flowers", 7, ("left out: one",))
    page, _ = bench.datasets.samples(dataset.id, limit=10, cursor=None)
    assert [sample.id for sample in page] == [file.sample_id for file in FILES]
    bench.delete_retired()
    assert n_listed(bench) == 0


def test_the_next_attempt_lists_anew_and_the_one_before_is_fenced_off(bench):
    job = create(bench)
    first = claim(bench)
    put(bench, first, 1, FILES, 7)
    bench.jobs.release(job.id, first.attempt)
    second = claim(bench)
    with pytest.raises(StaleAttempt):
        put(bench, first, 2, FILES, 14)
    bench.listings.begin(job.id, second.attempt)
    assert n_listed(bench) == 0
    assert put(bench, second, 1, FILES[:3], 3).processed == 7  # it does not go down
    put(bench, second, 1, FILES[:3], 3)  # sent twice
    with pytest.raises(Conflict):
        put(bench, second, 3, FILES, 10)
    with pytest.raises(StaleAttempt):
        bench.listings.commit(job.id, first.attempt, FOUND)
    bench.listings.commit(job.id, second.attempt, FOUND)
    assert bench.datasets.get(job.dataset_id).sample_count == 3


def test_a_writer_that_is_restarted_keeps_the_pages_of_jobs_and_drops_those_of_requests(bench, path):
    job = create(bench)
    claimed = claim(bench)
    put(bench, claimed, 1, FILES[:4], 4)
    bench.scan(FILES)
    bench.database.close()
    again = Workbench(path)
    put(again, claimed, 2, FILES[4:], 7)
    assert n_listed(again) == 7
    again.listings.commit(job.id, claimed.attempt, FOUND)
    assert again.datasets.get(job.dataset_id).sample_count == 7
    bench.database = again.database


def test_a_cancelled_registration_frees_its_name_and_its_pages(bench):
    job = create(bench)
    put(bench, claim(bench), 1, FILES, 7)
    assert bench.jobs.cancel(job.dataset_id).message == "Cancelled at 7 files"
    bench.delete_retired()
    assert n_listed(bench) == 0
    assert create(bench).id != job.id


def test_a_name_belongs_to_one_registration_and_to_none_that_a_dataset_has(bench):
    job = create(bench)
    with pytest.raises(JobRunning, match=job.id):
        create(bench)
    taken = bench.register(FILES)  # one that is no job does not see the other
    claimed = claim(bench)
    with pytest.raises(NameTaken, match=taken.id):
        bench.listings.commit(job.id, claimed.attempt, FOUND)
    bench.jobs.fail(job.id, claimed.attempt, "taken")
    with pytest.raises(NameTaken, match=taken.id):
        create(bench)


def test_a_rescan_job_changes_what_a_rescan_changes(bench):
    files = source_files(5)
    left, right = bench.register(files, "left"), bench.register(files, "right")
    now = [*source_files(4, size=101)[:1], *files[1:3], *source_files(2, prefix="new")]
    change = bench.datasets.rescan(bench.scan(now), left.id)
    assert change == ScanChange(added=2, changed=1, removed=2)

    job = bench.listings.create_rescan(right.id)
    with pytest.raises(JobRunning):
        bench.listings.create_rescan(right.id)
    claimed = claim(bench)
    put(bench, claimed, 1, now, 5)
    ended = bench.listings.commit(job.id, claimed.attempt, Listed("/roots/flowers", "folder", None))
    assert ended.message == "2 added, 1 changed, 2 removed"
    pages = [bench.datasets.samples(dataset.id, limit=10, cursor=None)[0] for dataset in (left, right)]
    assert pages[0] == pages[1]
