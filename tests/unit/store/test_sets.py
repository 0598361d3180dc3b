"""Several sets a dataset: one for each model, each with its map, and none of them harmed by work on another."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import Conflict, DatasetNotFound, JobRunning, NoEmbeddings, NotFound, StaleAttempt
from serve_app.records import ModelCard
from serve_app.store.columns import Columns
from serve_app.store.tags import SampleChoice, Tags
from tests.unit.store.workbench import CARD, DIMENSION, block_of, source_files
from tests.whole_set import read_now

WORDS = ModelCard("siglip2-base", 24, "space-words", "cpu", "fp32")
TWIN = ModelCard("twin", DIMENSION, "space-twin", "cpu", "fp32")  # shares its table with CARD
FILES = source_files(4)


@pytest.fixture(params=[WORDS, TWIN], ids=["another dimension", "the same table"])
def second(request):
    return request.param


@pytest.fixture
def dataset(bench, second):
    """A dataset with a set of two models each, the first one with a map."""
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.reduce(dataset)
    bench.embed(dataset, FILES, card=second)
    return dataset


def names(bench, dataset):
    return [now.model_name for now in bench.vectors.status(dataset.id).sets]


def look(bench, dataset, model):
    """The rows of one set, bit for bit, with its map."""
    status = bench.vectors.status(dataset.id, model)
    with bench.database.read() as session:
        view = f"embeddings_{status.dimension}"
        rows = session.q(
            f"SELECT * FROM {view} WHERE dataset_id = ? AND model_name = ? ORDER BY ALL", dataset.id, model
        )
    return status.embedding_count, status.has_reduction, repr(rows)


def test_a_dataset_holds_a_set_of_each_model_and_the_one_made_last_is_meant(bench, dataset, second):
    status = bench.vectors.status(dataset.id)
    assert [(now.model_name, now.embedding_count, now.has_reduction) for now in status.sets] == [
        (second.name, 4, False),
        (CARD.name, 4, True),
    ]
    assert (status.model_name, status.space_key, status.has_reduction) == (second.name, second.space_key, False)
    first = bench.vectors.status(dataset.id, CARD.name)
    assert (first.model_name, first.dimension, first.has_reduction) == (CARD.name, DIMENSION, True)
    assert bench.vectors.current(dataset.id).space_key == second.space_key
    assert bench.vectors.current(dataset.id, CARD.name).space_key == CARD.space_key


def test_to_generate_again_replaces_the_set_of_that_model_alone(bench, dataset, second):
    before = look(bench, dataset, CARD.name)
    bench.embed(dataset, FILES, card=second, force=True)
    bench.delete_retired()
    assert look(bench, dataset, CARD.name) == before
    bench.embed(dataset, FILES, force=True)
    assert names(bench, dataset) == [CARD.name, second.name]
    with bench.database.read() as session:
        assert session.value("SELECT count(*) FROM sets") == 2


def test_to_switch_to_another_model_and_back_computes_nothing(bench, dataset, second):
    for card in (CARD, second, CARD):
        job, read = bench.embed(dataset, FILES, card=card)
        assert (job.reused, read) == (4, [])
        assert bench.vectors.status(dataset.id).model_name == card.name


def test_two_names_of_one_space_compute_nothing_twice_and_each_goes_on_from_its_own_set(bench, dataset):
    namesake = replace(CARD, name="/models/the same weights")
    touched = [replace(file, mtime_ns=file.mtime_ns + 1) for file in FILES]
    job, read = bench.embed(dataset, FILES, card=namesake)
    assert (job.reused, read) == (4, [])
    bench.embed(dataset, touched, card=namesake)
    job, read = bench.embed(dataset, FILES)
    assert (job.reused, read) == (4, [])


def test_a_job_without_success_harms_neither_set(bench, dataset, second):
    before = [look(bench, dataset, model) for model in (CARD.name, second.name)]
    for end in ("cancel", "fail"):
        claim = bench.start(dataset, card=second, force=True)
        block = block_of(FILES[:2], dimension=second.dimension, space_key=second.space_key)
        bench.vectors.put_block(claim.job.id, claim.attempt, 1, block)
        if end == "cancel":
            bench.jobs.cancel(dataset.id)
        else:
            bench.jobs.fail(claim.job.id, claim.attempt, "broken")
        bench.delete_retired()
    assert [look(bench, dataset, model) for model in (CARD.name, second.name)] == before


def test_an_attempt_that_is_taken_up_again_keeps_its_model_and_fences_the_older_one(bench, dataset, second):
    claim = bench.start(dataset, force=True)
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(FILES[:3]))
    bench.clock.now += 60
    again = bench.resume(claim.job.id)
    assert (again.job.model_name, again.job.processed) == (CARD.name, 3)
    with pytest.raises(StaleAttempt):
        bench.vectors.put_block(claim.job.id, claim.attempt, 2, block_of(FILES[3:]))
    bench.vectors.put_block(again.job.id, again.attempt, 1, block_of(FILES[3:]))
    bench.vectors.commit(again.job.id, again.attempt)
    assert names(bench, dataset) == [CARD.name, second.name]


def test_removed_samples_leave_every_set_and_new_ones_enter_with_the_next_job_of_its_model(bench, dataset, second):
    now = [*FILES[1:], *source_files(2, prefix="new", size=900)]
    bench.datasets.rescan(bench.scan(now), dataset.id)
    status = bench.vectors.status(dataset.id)
    assert [(found.embedding_count, found.has_reduction) for found in status.sets] == [(3, False), (3, True)]
    job, read = bench.embed(dataset, now, card=second)
    assert (job.reused, len(read)) == (3, 2)
    assert [found.embedding_count for found in bench.vectors.status(dataset.id).sets] == [5, 3]
    job, read = bench.embed(dataset, now)
    assert (job.reused, len(read)) == (3, 2)
    assert [found.embedding_count for found in bench.vectors.status(dataset.id).sets] == [5, 5]


def test_a_map_belongs_to_the_set_that_was_named(bench, dataset, second):
    points = np.arange(8.0).reshape(4, 2) + 100
    bench.reduce(dataset, points, model=CARD.name)
    assert not bench.vectors.status(dataset.id).has_reduction
    bench.reduce(dataset, points + 100)
    job = bench.jobs.create(dataset.id, "reduce")
    assert job.model_name == second.name
    bench.jobs.cancel(dataset.id)
    for model, expected in ((CARD.name, points), (second.name, points + 100), (None, points + 100)):
        page, _ = bench.vectors.points(dataset.id, after=None, limit=10, model=model)
        found = pa.ipc.open_stream(page).read_all()
        assert np.array_equal(np.stack([found.column(axis) for axis in ("x", "y")], axis=1), expected)


def test_the_map_of_a_model_without_a_set_is_no_empty_map(bench, dataset):
    with pytest.raises(NoEmbeddings, match="unheard"):
        bench.vectors.points(dataset.id, after=None, limit=10, model="unheard of")


def test_a_region_is_one_of_the_map_that_was_named(bench, dataset, second):
    corners = [(-0.5, 0.5), (0.5, 0.5), (0.5, 1.5), (-0.5, 1.5)]  # holds the first point of the map and no other
    tags = Tags(bench.database)
    with pytest.raises(NoEmbeddings, match="no map"):
        tags.add(dataset.id, "near", SampleChoice(polygon=corners))
    assert tags.add(dataset.id, "near", SampleChoice(polygon=corners, model=CARD.name)).changed == 1
    with pytest.raises(NoEmbeddings, match="unheard"):
        tags.add(dataset.id, "near", SampleChoice(polygon=corners, model="unheard of"))


def test_pages_of_one_region_are_never_of_two_maps(bench, dataset):
    everywhere = "inside(-1e6, -1e6, 1e6, -1e6, 1e6, 1e6, -1e6, 1e6)"
    chosen = {"where": everywhere, "model": CARD.name, "limit": 2}
    columns = Columns(bench.database)
    _, cursor = bench.datasets.samples(dataset.id, cursor=None, **chosen)
    _, after = columns.rows(dataset.id, after=None, **chosen)
    rest, _ = bench.datasets.samples(dataset.id, cursor=cursor, **chosen)
    assert (len(rest), columns.rows(dataset.id, after=after, **chosen)[1]) == (2, None)
    bench.reduce(dataset, np.ones((4, 2)), model=CARD.name)
    with pytest.raises(Conflict, match="map"):
        bench.datasets.samples(dataset.id, cursor=cursor, **chosen)
    with pytest.raises(Conflict, match="map"):
        columns.rows(dataset.id, after=after, **chosen)


def test_a_deleted_set_goes_with_its_map_and_the_others_stay(bench, dataset, second):
    kept = look(bench, dataset, second.name)
    bench.vectors.delete(dataset.id, CARD.name)
    bench.delete_retired()
    assert names(bench, dataset) == [second.name]
    assert look(bench, dataset, second.name) == kept
    with bench.database.read() as session:
        assert session.value("SELECT count(*) FROM points") == 0
    job, _ = bench.embed(dataset, FILES)
    assert (job.reused, names(bench, dataset)) == (0, [CARD.name, second.name])


def test_when_the_set_made_last_is_deleted_the_one_before_is_meant(bench, dataset, second):
    bench.vectors.delete(dataset.id, second.name)
    assert bench.vectors.status(dataset.id).model_name == CARD.name
    bench.vectors.delete(dataset.id, CARD.name)
    status = bench.vectors.status(dataset.id)
    assert (status.has_embeddings, status.model_name, status.sets) == (False, None, [])


def test_what_cannot_be_deleted_says_why(bench, dataset):
    with pytest.raises(NotFound, match="unheard of"):
        bench.vectors.delete(dataset.id, "unheard of")
    with pytest.raises(DatasetNotFound):
        bench.vectors.delete("nobody", CARD.name)
    bench.jobs.create(dataset.id, "reduce")
    with pytest.raises(JobRunning):
        bench.vectors.delete(dataset.id, CARD.name)


def test_a_deleted_dataset_takes_all_of_its_sets_along(bench, dataset, second):
    bench.datasets.delete(dataset.id)
    bench.delete_retired()
    with bench.database.read() as session:
        tables = {f"vectors_{DIMENSION}", f"vectors_{second.dimension}", "points", "sets"}
        assert [session.value(f"SELECT count(*) FROM {table}") for table in sorted(tables)] == [0] * len(tables)


def test_a_set_that_is_not_there_is_told_by_name_with_those_that_are(bench, dataset, second):
    for ask in (
        lambda: bench.vectors.current(dataset.id, "unheard of"),
        lambda: bench.jobs.create(dataset.id, "reduce", model_name="unheard of"),
        lambda: bench.jobs.create(dataset.id, "graph", model_name="unheard of"),
    ):
        with pytest.raises(NoEmbeddings, match=f"'unheard of' found; .*'{second.name}', '{CARD.name}'"):
            ask()
    status = bench.vectors.status(dataset.id, "unheard of")
    assert (status.has_embeddings, status.model_name, len(status.sets)) == (False, None, 2)


def test_pages_of_a_set_go_on_while_another_is_replaced_and_end_when_their_own_is(bench, dataset, second):
    version = bench.vectors.current(dataset.id, CARD.name).version
    first = read_now(bench.vectors, dataset.id, CARD.name).vectors
    bench.embed(dataset, FILES, card=second, force=True)
    assert np.array_equal(read_now(bench.vectors, dataset.id, CARD.name).vectors, first)
    assert bench.vectors.rows(dataset.id, version=version, after=-1, limit=10)
    bench.embed(dataset, FILES, force=True)
    with pytest.raises(Conflict):
        bench.vectors.rows(dataset.id, version=version, after=-1, limit=10)
