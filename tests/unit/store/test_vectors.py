"""Staging, reuse, the swap, coordinates and bulk reads."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import Conflict, DatasetNotFound, InvalidRequest, ModelReplaced, NoEmbeddings, StaleAttempt
from serve_app.records import Block, ModelCard, Skip
from serve_app.store.staging import MAX_KNOWN_HASHES
from tests.invariants import fingerprint
from tests.unit.store.workbench import CARD, DIMENSION, block_of, source_files, stamp_of, vector_of
from tests.whole_set import read_now

LARGE = ModelCard("dinov2-large", 1024, "space-large", "cpu", "fp32")
OTHER_SPACE = ModelCard("dinov2-small", DIMENSION, "space-b", "cpu", "bf16")


def moved(file, *, name):
    """The same file under another name."""
    return replace(file, sample_id=name, file_name=name)


def skip_of(file, reason):
    return Skip(file.sample_id, file.file_name, reason, reason)


def collect(page_of, after=-1):
    """All rows and the page sizes of a paged Arrow read."""
    tables = []
    while not tables or after is not None:
        data, after = page_of(after)
        tables.append(pa.ipc.open_stream(data).read_all())
    return pa.concat_tables(tables), [table.num_rows for table in tables]


def test_a_whole_job_stores_the_vectors_in_sample_order_bit_for_bit(bench):
    files = source_files(9)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    for number, part in enumerate((files[5:], files[:2], files[2:5]), start=1):
        bench.vectors.put_block(claim.job.id, claim.attempt, number, block_of(part))
    job = bench.vectors.commit(claim.job.id, claim.attempt)
    assert (job.status, job.processed, job.message) == ("complete", 9, "Embedded 9 images")
    found = read_now(bench.vectors, dataset.id)
    assert found.sample_ids == [file.sample_id for file in files]
    assert found.file_names == [file.file_name for file in files]
    assert found.labels == [file.label for file in files]
    assert found.content_hashes == [stamp_of(file).content_hash for file in files]
    assert (found.job_id, found.model_name, found.space_key, found.points) == (
        job.id,
        "dinov2-small",
        "space-a",
        None,
    )
    assert found.vectors.dtype == np.float32
    assert np.array_equal(found.vectors, np.stack([vector_of(file.sample_id) for file in files]))


def test_a_repeated_block_counts_once(bench):
    files = source_files(4)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    block = block_of(files[:2], skips=[skip_of(files[2], "empty")])
    first = bench.vectors.put_block(claim.job.id, claim.attempt, 1, block)
    again = bench.vectors.put_block(claim.job.id, claim.attempt, 1, block)
    assert (
        (again.processed, again.skipped, again.seq) == (first.processed, first.skipped, first.seq) == (3, 1, first.seq)
    )


def test_a_block_out_of_turn_is_refused(bench):
    files = source_files(2)
    claim = bench.start(bench.register(files))
    with pytest.raises(Conflict, match="block 1 comes next"):
        bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(files))


def test_the_next_attempt_numbers_its_blocks_anew_and_settled_samples_count_once(bench):
    files = source_files(4)
    claim = bench.start(bench.register(files))
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:3]))
    bench.jobs.release(claim.job.id, claim.attempt)
    claim = bench.resume(claim.job.id)
    again = block_of(files, skips=[skip_of(files[0], "empty"), skip_of(files[3], "empty")])
    job = bench.vectors.put_block(claim.job.id, claim.attempt, 1, again)
    assert (job.processed, job.skipped) == (4, 0)


def test_samples_that_are_not_of_the_dataset_are_ignored(bench):
    files = source_files(2)
    claim = bench.start(bench.register(files))
    strangers = source_files(2, prefix="stranger")
    job = bench.vectors.put_block(
        claim.job.id, claim.attempt, 1, block_of(strangers, skips=[skip_of(moved(files[0], name="x"), "empty")])
    )
    assert job.processed == 0
    observed = [replace(file, size_bytes=1, mtime_ns=1) for file in strangers]
    assert bench.vectors.plan(claim.job.id, claim.attempt, observed) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda block: replace(block, vectors=block.vectors[:, :-1]),
        lambda block: replace(block, vectors=block.vectors.astype(np.float64)),
        lambda block: replace(block, vectors=block.vectors[:-1]),
        lambda block: replace(block, stamps=block.stamps[:-1]),
    ],
    ids=["dimension", "dtype", "rows", "stamps"],
)
def test_a_block_whose_parts_do_not_fit_is_refused_whole(bench, spoil):
    files = source_files(3)
    claim = bench.start(bench.register(files))
    with pytest.raises(InvalidRequest):
        bench.vectors.put_block(claim.job.id, claim.attempt, 1, spoil(block_of(files)))
    assert bench.jobs.get(claim.job.id).processed == 0


def test_a_block_of_another_space_is_refused_whole(bench):
    files = source_files(3)
    claim = bench.start(bench.register(files))
    with pytest.raises(ModelReplaced, match="another model"):
        bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files, space_key="space-b"))
    assert bench.jobs.get(claim.job.id).processed == 0


def test_work_before_begin_is_refused(bench):
    files = source_files(1)
    bench.jobs.create(bench.register(files).id, "embed", model_name="m")
    claim = bench.jobs.claim("r", holding=[], lease_s=30)
    for call in (
        lambda: bench.vectors.plan(claim.job.id, 1, []),
        lambda: bench.vectors.put_block(claim.job.id, 1, 1, block_of(files)),
        lambda: bench.vectors.commit(claim.job.id, 1),
    ):
        with pytest.raises(Conflict, match="vector space"):
            call()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38], ids=str)
def test_a_vector_with_an_unusable_component_is_skipped(bench, value):
    files = source_files(3)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    block = block_of(files)
    block.vectors[1, 7] = value
    job = bench.vectors.put_block(claim.job.id, claim.attempt, 1, block)
    assert (job.processed, job.skipped) == (3, 1)
    bench.vectors.commit(claim.job.id, claim.attempt)
    (skip,), _ = bench.jobs.skipped(dataset.id, limit=5, cursor=None)
    assert (skip.sample_id, skip.file_name, skip.reason) == (files[1].sample_id, files[1].file_name, "nonfinite")
    assert np.isfinite(read_now(bench.vectors, dataset.id).vectors).all()


@pytest.mark.parametrize("scale", [0, 1e-30], ids=["zero", "underflow"])
def test_a_vector_without_a_direction_is_skipped(bench, scale):
    files = source_files(2)
    claim = bench.start(bench.register(files))
    block = block_of(files)
    block.vectors[0] *= np.float32(scale)
    assert bench.vectors.put_block(claim.job.id, claim.attempt, 1, block).skipped == 1


def test_a_commit_waits_for_pending_samples(bench):
    files = source_files(3)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:1]))
    with pytest.raises(Conflict, match="2 of 3 samples are still pending"):
        bench.vectors.commit(claim.job.id, claim.attempt)
    assert bench.jobs.get(claim.job.id).status == "running"


def test_a_repeated_commit_returns_the_finished_job(bench):
    files = source_files(2)
    claim = bench.start(bench.register(files))
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files))
    job = bench.vectors.commit(claim.job.id, claim.attempt)
    assert bench.vectors.commit(claim.job.id, claim.attempt) == job
    with pytest.raises(StaleAttempt):
        bench.vectors.commit(claim.job.id, claim.attempt - 1)


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        (["empty", "truncated", "empty", "empty"], "no_valid_images"),
        (["not_found", "not_found", "not_found", None], "root_unavailable"),
        (["not_found", "not_found", "not_found", "not_found"], "root_unavailable"),
        (["io_error", "permission_denied", "io_error", None], "root_unavailable"),
        (["unreachable", "changed", "symlink", None], "root_unavailable"),
        (["not_found", "crashed_worker", "crashed_worker", None], "worker_failed"),
        (["no reason of this version", "io_error", "io_error", None], "root_unavailable"),
    ],
    ids=["all bad", "most gone", "all gone", "a bad disk", "moved", "a bad replica", "unknown"],
)
def test_a_job_that_must_not_replace_anything_keeps_the_old_vectors(bench, reasons, code):
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    with bench.database.read() as session:
        before = fingerprint(session, dataset.id)
    claim = bench.start(dataset, force=True)
    skips = [skip_of(file, reason) for file, reason in zip(files, reasons, strict=True) if reason]
    good = [file for file, reason in zip(files, reasons, strict=True) if not reason]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(good, skips=skips))
    job = bench.vectors.commit(claim.job.id, claim.attempt)
    assert job.status == "error"
    assert job.message.startswith(f"{code}: ")
    assert bench.vectors.commit(claim.job.id, claim.attempt) == job
    with bench.database.read() as session:
        assert fingerprint(session, dataset.id) == before


def test_half_of_the_files_gone_is_not_too_many(bench):
    files = source_files(4)
    dataset = bench.register(files)
    claim = bench.start(dataset)
    skips = [skip_of(file, "not_found") for file in files[:2]]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[2:], skips=skips))
    assert bench.vectors.commit(claim.job.id, claim.attempt).message == "Embedded 2 images, 2 skipped"


def test_bad_images_do_not_keep_a_set_as_it_was(bench):
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    claim = bench.start(dataset, force=True)
    reasons = ("corrupt", "truncated", "io_error")
    skips = [skip_of(file, reason) for file, reason in zip(files[:3], reasons, strict=True)]
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[3:], skips=skips))
    assert bench.vectors.commit(claim.job.id, claim.attempt).message == "Embedded 1 image, 3 skipped"


def test_an_empty_dataset_ends_in_an_error(bench):
    claim = bench.start(bench.register([]))
    job = bench.vectors.commit(claim.job.id, claim.attempt)
    assert (job.status, job.message.partition(":")[0]) == ("error", "no_valid_images")


def test_a_set_of_the_same_model_in_another_dimension_takes_the_place_of_the_old_one(bench):
    files = source_files(3)
    dataset, bystander = bench.register(files), bench.register(files, name="bystander")
    bench.embed(bystander, files)
    bench.embed(dataset, files)
    bench.reduce(dataset)
    job, _ = bench.embed(dataset, files, card=replace(LARGE, name=CARD.name))
    with bench.database.read() as session:
        assert session.q("SELECT DISTINCT dataset_id FROM embeddings_384") == [(bystander.id,)]
        assert session.value("SELECT count(*) FROM embeddings_1024") == 3
    status = bench.vectors.status(dataset.id)
    assert (status.dimension, status.job_id, status.embedding_count) == (1024, job.id, 3)
    assert not status.has_reduction
    assert bench.vectors.status(bystander.id).embedding_count == 3


def test_unchanged_files_are_reused_without_being_read(bench):
    files = source_files(5)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    before = read_now(bench.vectors, dataset.id)
    job, tasks = bench.embed(dataset, files)
    assert tasks == []
    assert (job.message, job.reused, job.processed) == ("Embedded 0 images, 5 reused", 5, 5)
    after = read_now(bench.vectors, dataset.id)
    assert after.job_id == job.id
    assert np.array_equal(after.vectors, before.vectors)
    assert after.content_hashes == before.content_hashes


def test_a_changed_mtime_asks_to_read_the_file_and_knows_what_it_held(bench):
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    touched = replace(files[1], mtime_ns=99)
    claim = bench.start(dataset)
    tasks = bench.plan(claim, [files[0], touched, files[2]])
    known = frozenset({stamp_of(touched).content_hash})
    assert tasks == [replace(touched, mtime_ns=99, known_hashes=known)]
    job = bench.vectors.put_block(
        claim.job.id, claim.attempt, 1, replace(block_of([]), known=[(touched.sample_id, stamp_of(touched))])
    )
    assert (job.processed, job.reused) == (3, 3)
    bench.vectors.commit(claim.job.id, claim.attempt)
    assert np.array_equal(read_now(bench.vectors, dataset.id).vectors[1], vector_of(files[1].sample_id))
    _, tasks = bench.embed(dataset, [files[0], touched, files[2]])
    assert tasks == []


def test_planning_is_safe_to_repeat(bench):
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    claim = bench.start(dataset)
    observed = bench.observe(claim, [*files[:3], replace(files[3], mtime_ns=5)])
    first = bench.vectors.plan(claim.job.id, claim.attempt, observed)
    assert bench.vectors.plan(claim.job.id, claim.attempt, observed) == first
    assert len(first) == 1
    assert bench.jobs.get(claim.job.id).reused == 3


def test_a_renamed_or_copied_file_is_known_by_size_whatever_its_dataset(bench):
    files = source_files(3)
    bench.embed(bench.register(files), files)
    copies = [moved(file, name=f"elsewhere/{i}.jpg") for i, file in enumerate(files)]
    copies.append(replace(source_files(1, prefix="fresh", size=5000)[0]))
    dataset = bench.register(copies, name="copies")
    claim = bench.start(dataset)
    tasks = bench.plan(claim, copies)
    assert [task.known_hashes for task in tasks] == [frozenset({stamp_of(file).content_hash}) for file in files] + [
        frozenset()
    ]
    known = [(copy.sample_id, stamp_of(copy, file.sample_id)) for copy, file in zip(copies[:3], files, strict=True)]
    job = bench.vectors.put_block(claim.job.id, claim.attempt, 1, replace(block_of(copies[3:]), known=known))
    assert (job.processed, job.reused) == (4, 3)
    bench.vectors.commit(claim.job.id, claim.attempt)
    expected = [vector_of(text) for text in [*(file.sample_id for file in files), copies[3].sample_id]]
    assert np.array_equal(read_now(bench.vectors, dataset.id).vectors, np.stack(expected))


def test_what_the_running_job_has_staged_is_known_too(bench):
    files = source_files(1, size=70) + source_files(1, prefix="twin", size=70)
    claim = bench.start(bench.register(files))
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(files[:1]))
    (task,) = bench.plan(claim, files)
    assert task.known_hashes == {stamp_of(files[0]).content_hash}


def test_vectors_of_another_space_are_never_reused(bench):
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    claim = bench.start(dataset, card=OTHER_SPACE)
    tasks = bench.plan(claim, files)
    assert [task.known_hashes for task in tasks] == [frozenset()] * 3
    known = [(files[0].sample_id, stamp_of(files[0]))]
    block = replace(block_of(files[1:], space_key="space-b"), known=known)
    job = bench.vectors.put_block(claim.job.id, claim.attempt, 1, block)
    assert job.processed == 2
    with pytest.raises(Conflict, match="1 of 3"):
        bench.vectors.commit(claim.job.id, claim.attempt)


def test_force_reuses_nothing(bench):
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    job, tasks = bench.embed(dataset, files, force=True)
    assert [task.known_hashes for task in tasks] == [frozenset()] * 3
    assert (job.reused, job.message) == (0, "Embedded 3 images")


def test_a_known_vector_that_went_away_leaves_its_sample_pending(bench):
    files = source_files(2)
    source = bench.register(files, name="source")
    bench.embed(source, files)
    copy = moved(files[0], name="copy.jpg")
    claim = bench.start(bench.register([copy], name="copy"))
    (task,) = bench.plan(claim, [copy])
    assert task.known_hashes
    bench.datasets.delete(source.id)
    block = replace(block_of([]), known=[(copy.sample_id, stamp_of(copy, files[0].sample_id))])
    assert bench.vectors.put_block(claim.job.id, claim.attempt, 1, block).processed == 0
    (task,) = bench.plan(claim, [copy])
    assert task.known_hashes == frozenset()
    bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of([copy]))
    assert bench.vectors.commit(claim.job.id, claim.attempt).status == "complete"


def test_a_file_that_could_not_be_examined_is_read_and_never_matched(bench):
    files = [replace(file, size_bytes=-1, mtime_ns=-1) for file in source_files(2)]
    dataset = bench.register(files)
    bench.embed(dataset, files)
    _, tasks = bench.embed(dataset, files)
    assert [task.known_hashes for task in tasks] == [frozenset()] * 2


def test_tasks_come_in_order_of_size(bench):
    files = [replace(file, size_bytes=size) for file, size in zip(source_files(5), [50, 10, 40, 10, 30], strict=True)]
    claim = bench.start(bench.register(files))
    tasks = bench.plan(claim, files)
    assert [task.sample_id for task in tasks] == [files[i].sample_id for i in (1, 3, 4, 2, 0)]


def test_a_size_that_very_many_contents_share_is_only_matched_with_the_files_own_content(bench):
    n = 2 * MAX_KNOWN_HASHES
    files = [replace(file, size_bytes=3126) for file in source_files(n)]
    dataset = bench.register(files)
    bench.embed(dataset, files)
    touched = replace(files[0], mtime_ns=7)
    claim = bench.start(dataset)
    (task,) = bench.plan(claim, [touched])
    assert task.known_hashes == {stamp_of(touched).content_hash}


def test_coordinates_reach_their_samples_in_order(bench):
    files = source_files(5)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    points = np.array([[i, -i / 3] for i in range(5)], np.float64)
    job = bench.reduce(dataset, points)
    assert (job.status, job.processed, job.total, job.message) == ("complete", 5, 5, "Placed 5 images on the map")
    assert np.array_equal(read_now(bench.vectors, dataset.id).points, points)
    assert bench.vectors.status(dataset.id).has_reduction


def test_coordinates_of_replaced_vectors_are_discarded(bench):
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    job = bench.jobs.create(dataset.id, "reduce")
    claim = bench.jobs.claim("r", holding=[], lease_s=30)
    done = bench.vectors.put_points(job.id, claim.attempt, "an older job", np.zeros((3, 2)))
    assert done.status == "error"
    assert not bench.vectors.status(dataset.id).has_reduction
    assert bench.vectors.put_points(job.id, claim.attempt, "an older job", np.zeros((3, 2))) == done


@pytest.mark.parametrize(
    "points",
    [np.zeros((3, 3)), np.zeros(6), np.zeros((2, 2)), np.array([[0, 0], [np.nan, 0], [1, 1]])],
    ids=["three columns", "flat", "too few", "nan"],
)
def test_coordinates_of_the_wrong_shape_are_refused(bench, points):
    files = source_files(3)
    dataset = bench.register(files)
    job, _ = bench.embed(dataset, files)
    bench.jobs.create(dataset.id, "reduce")
    claim = bench.jobs.claim("r", holding=[], lease_s=30)
    with pytest.raises(InvalidRequest):
        bench.vectors.put_points(claim.job.id, claim.attempt, job.id, points)
    assert bench.jobs.get(claim.job.id).status == "running"


def test_a_sample_that_came_back_has_no_place_until_the_next_reduction(bench):
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.datasets.rescan(bench.scan(files[1:]), dataset.id)
    bench.reduce(dataset)
    bench.datasets.rescan(bench.scan(files), dataset.id)
    points = read_now(bench.vectors, dataset.id).points
    assert np.isnan(points[0]).all()
    assert np.isfinite(points[1:]).all()
    table, _ = collect(lambda after: bench.vectors.points(dataset.id, after=after, limit=10), None)
    assert table.column("sample_id").to_pylist() == [file.sample_id for file in files[1:]]


def test_the_version_changes_with_vectors_and_samples_and_stays_with_the_map(bench):
    files = source_files(2)
    dataset = bench.register(files)
    with pytest.raises(NoEmbeddings):
        bench.vectors.current(dataset.id)
    bench.embed(dataset, files)
    first = bench.vectors.current(dataset.id).version
    bench.reduce(dataset)
    assert bench.vectors.current(dataset.id).version == first
    bench.datasets.rescan(bench.scan(files[1:]), dataset.id)
    without_one = bench.vectors.current(dataset.id).version
    bench.datasets.rescan(bench.scan(files), dataset.id)
    with_it_again = bench.vectors.current(dataset.id).version
    bench.embed(dataset, files)
    versions = [first, without_one, with_it_again, bench.vectors.current(dataset.id).version]
    assert len(set(versions)) == len(versions)
    with pytest.raises(DatasetNotFound):
        bench.vectors.current("nope")


@pytest.mark.parametrize("limit", [1, 3, 7, 8, 100])
def test_pages_of_the_export_join_to_the_whole(bench, limit):
    files = source_files(8)
    dataset = bench.register(files)
    bench.embed(dataset, [*files[:3], *files[4:], files[3]])
    bench.reduce(dataset)
    whole = read_now(bench.vectors, dataset.id)
    version = whole.version
    table, sizes = collect(lambda after: bench.vectors.export(dataset.id, version=version, after=after, limit=limit))
    assert table.column_names == ["sample_id", "file_name", "label", "model_name", "vector", "x", "y"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIMENSION)
    assert table.column("sample_id").to_pylist() == whole.sample_ids
    assert table.column("label").to_pylist() == whole.labels
    assert set(table.column("model_name").to_pylist()) == {"dinov2-small"}
    vectors = np.array(table.column("vector").to_pylist(), np.float32)
    assert np.array_equal(vectors, whole.vectors)
    assert np.array_equal(np.stack([table.column("x"), table.column("y")], axis=1), whole.points)
    assert 0 not in sizes
    assert max(sizes) == min(limit, 8)


@pytest.mark.parametrize("limit", [1, 3, 8, 100])
def test_pages_of_the_map_join_to_the_whole(bench, limit):
    files = source_files(8)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.reduce(dataset)
    whole = read_now(bench.vectors, dataset.id)
    table, sizes = collect(lambda after: bench.vectors.points(dataset.id, after=after, limit=limit), None)
    assert table.column_names == ["sample_id", "x", "y", "file_name", "label"]
    assert table.column("sample_id").to_pylist() == whole.sample_ids
    assert np.array_equal(np.stack([table.column("x"), table.column("y")], axis=1), whole.points)
    assert 0 not in sizes


def test_the_map_is_empty_before_any_reduction(bench):
    files = source_files(2)
    dataset = bench.register(files)
    for _ in range(2):
        table, _ = collect(lambda after: bench.vectors.points(dataset.id, after=after, limit=5), None)
        assert (table.num_rows, table.column_names) == (0, ["sample_id", "x", "y", "file_name", "label"])
        bench.embed(dataset, files)


@pytest.mark.parametrize("change", ["vectors", "another model", "map", "samples", "nothing"])
def test_pages_of_a_map_that_was_made_anew_are_refused(bench, change):
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.reduce(dataset)
    _, after = bench.vectors.points(dataset.id, after=None, limit=2)
    if change == "vectors":
        bench.embed(dataset, files)
        bench.reduce(dataset)
    elif change == "another model":  # its set is the one made last, and has no map
        bench.embed(dataset, files, card=replace(CARD, name="another", space_key="another"))
    elif change == "map":
        bench.reduce(dataset, np.ones((4, 2)))
    elif change == "samples":
        bench.datasets.rescan(bench.scan(files[1:]), dataset.id)
    else:
        assert bench.vectors.points(dataset.id, after=after, limit=2)[1] is None
        return
    with pytest.raises(Conflict, match="ask for it again"):
        bench.vectors.points(dataset.id, after=after, limit=2)


def test_a_cursor_that_no_page_of_the_map_gave_is_refused(bench):
    files = source_files(3)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    bench.reduce(dataset)
    _, after = bench.vectors.points(dataset.id, after=None, limit=1)
    with pytest.raises(InvalidRequest):
        bench.vectors.points(dataset.id, after="x" + after, limit=1)
    with pytest.raises(Conflict):
        bench.vectors.points(dataset.id, after="0", limit=1)


def test_an_export_of_replaced_vectors_is_refused(bench):
    files = source_files(2)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    old = bench.vectors.current(dataset.id).version
    bench.embed(dataset, files)
    with pytest.raises(Conflict, match="start it again"):
        bench.vectors.export(dataset.id, version=old, after=-1, limit=5)


def test_an_export_breaks_off_when_a_rescan_moves_the_samples_of_its_pages(bench):
    files = source_files(4)
    dataset = bench.register(files)
    bench.embed(dataset, files)
    version = bench.vectors.current(dataset.id).version
    _, after = bench.vectors.export(dataset.id, version=version, after=-1, limit=2)
    bench.datasets.rescan(bench.scan(files[1:]), dataset.id)
    with pytest.raises(Conflict, match="rescanned"):
        bench.vectors.export(dataset.id, version=version, after=after, limit=2)


def test_reads_without_vectors_say_so(bench):
    dataset = bench.register(source_files(1))
    status = bench.vectors.status(dataset.id)
    assert (status.has_embeddings, status.embedding_count, status.model_name, status.sample_count) == (
        False,
        0,
        None,
        1,
    )
    for call in (
        lambda: bench.vectors.current(dataset.id),
        lambda: bench.vectors.export(dataset.id, version="any", after=-1, limit=5),
    ):
        with pytest.raises(NoEmbeddings, match=r"No embeddings found. Generate embeddings first\."):
            call()


def test_reads_of_an_unknown_dataset_name_it(bench):
    for call in (
        lambda: bench.vectors.status("nope"),
        lambda: bench.vectors.current("nope"),
        lambda: bench.vectors.points("nope", after=None, limit=5),
        lambda: bench.vectors.export("nope", version="any", after=-1, limit=5),
    ):
        with pytest.raises(DatasetNotFound, match="nope"):
            call()


def test_a_block_of_nothing_counts_as_a_block(bench):
    files = source_files(1)
    claim = bench.start(bench.register(files))
    empty = Block([], np.empty((0, 0), np.float32), [])
    assert bench.vectors.put_block(claim.job.id, claim.attempt, 1, empty).processed == 0
    assert bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(files)).processed == 1
