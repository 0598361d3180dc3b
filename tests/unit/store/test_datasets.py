"""Registration, listing and rescans."""

import pytest

from serve_app.errors import (
    DatasetNotFound,
    InvalidRequest,
    JobNotFound,
    JobRunning,
    NameTaken,
    SampleNotFound,
    Unavailable,
)
from serve_app.records import Sample, ScanChange, SourceFile
from tests.unit.store.workbench import Workbench, source_files
from tests.whole_set import read_now

HOSTILE = [
    "x'; DROP TABLE jobs; --",
    "embeddings",
    '"quoted" $1 ? :name',
    "línea\nnueva\t\u2028",
    "e\u0301 é",
    "%s %% {0}",
    "nul\0inside",
    "🦕" * 50,
]


def test_a_registered_scan_becomes_a_dataset_with_its_samples_in_listing_order(bench):
    files = source_files(5)
    dataset = bench.register(files[::-1])
    assert bench.datasets.get(dataset.id) == dataset
    assert bench.datasets.all() == [dataset]
    assert bench.datasets.by_name("flowers") == dataset
    assert dataset.sample_count == 5
    assert dataset.created_at.utcoffset().total_seconds() == 0
    page, cursor = bench.datasets.samples(dataset.id, limit=10, cursor=None)
    assert page == [Sample(file.sample_id, file.file_name, file.label) for file in files[::-1]]
    assert cursor is None


def test_pages_of_samples_join_to_the_whole(bench):
    dataset = bench.register(source_files(10))
    whole, _ = bench.datasets.samples(dataset.id, limit=100, cursor=None)
    for limit in (1, 3, 5, 10):
        collected, cursor = [], None
        while True:
            page, cursor = bench.datasets.samples(dataset.id, limit=limit, cursor=cursor)
            collected += page
            if cursor is None:
                break
        assert collected == whole


@pytest.mark.parametrize("cursor", ["", "-1", "1-", "1--1", "1-0-0", "0", "a", "1-_0", "1-٣", "1-" + "9" * 19, "1-OR"])
def test_a_cursor_that_no_page_gave_is_refused(bench, cursor):
    dataset = bench.register(source_files(1))
    with pytest.raises(InvalidRequest, match="cursor"):
        bench.datasets.samples(dataset.id, limit=1, cursor=cursor)


def test_a_limit_below_one_is_refused(bench):
    dataset = bench.register(source_files(1))
    with pytest.raises(InvalidRequest, match="limit"):
        bench.datasets.samples(dataset.id, limit=0, cursor=None)


def test_a_page_put_twice_is_stored_once(bench):
    scan = bench.scan(source_files(3))
    bench.datasets.put_scan(scan, 0, source_files(3))
    bench.datasets.put_scan(scan, 1, source_files(2, prefix="more"))
    dataset = bench.datasets.register(scan, name="n", root="/r", format="folder", annotations=None)
    assert dataset.sample_count == 5


def test_of_repeated_sample_ids_the_first_counts(bench):
    first, second = SourceFile("a", "first.jpg", None, 1, 1), SourceFile("a", "second.jpg", None, 2, 2)
    scan = bench.scan([first])
    bench.datasets.put_scan(scan, 1, [second, *source_files(1)])
    dataset = bench.datasets.register(scan, name="n", root="/r", format="folder", annotations=None)
    assert dataset.sample_count == 2
    assert bench.datasets.sample(dataset.id, "a")[1].file_name == "first.jpg"


def test_an_empty_scan_is_an_empty_dataset(bench):
    dataset = bench.register([])
    assert dataset.sample_count == 0
    assert bench.datasets.samples(dataset.id, limit=5, cursor=None) == ([], None)


def test_a_taken_name_is_refused_with_the_id_of_its_dataset(bench):
    dataset = bench.register(source_files(1))
    with pytest.raises(NameTaken) as caught:
        bench.register(source_files(2))
    assert caught.value.detail == dataset.id
    assert bench.datasets.all() == [dataset]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_names_that_look_like_sql_are_kept_verbatim(bench, text):
    dataset = bench.register([SourceFile(text, text, text, 1, 1)], name=text)
    assert bench.datasets.by_name(text).name == text
    assert bench.datasets.sample(dataset.id, text)[1] == SourceFile(text, text, text, 1, 1)


def test_a_dropped_or_unknown_scan_asks_to_try_again(bench):
    scan = bench.scan(source_files(1))
    bench.datasets.drop_scan(scan)
    bench.datasets.drop_scan(scan)
    for call in (
        lambda: bench.datasets.put_scan(scan, 1, []),
        lambda: bench.datasets.register(scan, name="n", root="/r", format="folder", annotations=None),
    ):
        with pytest.raises(Unavailable, match="try again"):
            call()
    assert bench.datasets.all() == []


def test_scans_left_behind_go_with_the_first_write_of_the_next_writer(path):
    first = Workbench(path)
    scan = first.scan(source_files(3))
    first.database.close()
    second = Workbench(path)
    second.datasets.begin_scan()
    with second.database.read() as session:
        assert session.value("SELECT count(*) FROM scan_files") == 0
        assert session.row("SELECT 1 FROM scans WHERE id = ?", scan) is None
    second.database.close()


def test_a_rescan_counts_added_changed_and_removed_and_keeps_ids(bench):
    files = source_files(6)
    dataset = bench.register(files)
    touched = SourceFile(files[1].sample_id, files[1].file_name, files[1].label, files[1].size_bytes, 99)
    relabelled = SourceFile(files[2].sample_id, files[2].file_name, None, files[2].size_bytes, files[2].mtime_ns)
    listed = [*source_files(2, prefix="new"), files[0], touched, relabelled, files[3]]
    change = bench.datasets.rescan(bench.scan(listed), dataset.id)
    assert change == ScanChange(added=2, changed=2, removed=2)
    page, _ = bench.datasets.samples(dataset.id, limit=10, cursor=None)
    assert [sample.id for sample in page] == [file.sample_id for file in listed]
    assert bench.datasets.get(dataset.id).sample_count == 6


def test_a_rescan_of_an_unchanged_folder_changes_nothing(bench):
    files = source_files(4)
    dataset = bench.register(files)
    assert bench.datasets.rescan(bench.scan(files), dataset.id) == ScanChange(0, 0, 0)


def test_vectors_of_a_removed_sample_are_unseen_until_it_comes_back(bench):
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    before = read_now(bench.vectors, dataset.id)
    bench.datasets.rescan(bench.scan(files[1:]), dataset.id)
    assert bench.vectors.status(dataset.id).embedding_count == 3
    assert files[0].sample_id not in read_now(bench.vectors, dataset.id).sample_ids
    bench.datasets.rescan(bench.scan(files), dataset.id)
    after = read_now(bench.vectors, dataset.id)
    assert after.sample_ids == before.sample_ids
    assert (after.vectors == before.vectors).all()


def test_rescan_and_delete_are_refused_while_a_job_runs(bench):
    dataset = bench.register(source_files(1))
    job = bench.jobs.create(dataset.id, "embed", model_name="m")
    for call in (
        lambda: bench.datasets.rescan(bench.scan([]), dataset.id),
        lambda: bench.datasets.delete(dataset.id),
    ):
        with pytest.raises(JobRunning) as caught:
            call()
        assert caught.value.detail == job.id


def test_a_deleted_dataset_leaves_nothing_behind(bench):
    files = source_files(3)
    kept, gone = bench.register(files, name="kept"), bench.register(files, name="gone")
    bench.embed(kept, files)
    job, _ = bench.embed(gone, files)
    bench.datasets.delete(gone.id)
    bench.delete_retired()
    assert bench.datasets.all() == [kept]
    with pytest.raises(JobNotFound):
        bench.jobs.get(job.id)
    with bench.database.read() as session:
        for table in ("samples", "jobs", "embeddings_384"):
            assert session.q(f"SELECT DISTINCT dataset_id FROM {table}") == [(kept.id,)]
    assert bench.vectors.status(kept.id).embedding_count == 3


def test_what_is_not_there_is_named(bench):
    dataset = bench.register(source_files(1))
    for call in (
        lambda: bench.datasets.get("nope"),
        lambda: bench.datasets.samples("nope", limit=1, cursor=None),
        lambda: bench.datasets.sample("nope", "x"),
        lambda: bench.datasets.rescan(bench.scan([]), "nope"),
        lambda: bench.datasets.delete("nope"),
    ):
        with pytest.raises(DatasetNotFound, match="nope"):
            call()
    with pytest.raises(SampleNotFound, match="x"):
        bench.datasets.sample(dataset.id, "x")
    assert bench.datasets.by_name("nope") is None


def test_text_that_is_not_unicode_is_refused_as_a_request(bench):
    with pytest.raises(InvalidRequest, match="text"):
        bench.register([], name="lone \udcff surrogate")
