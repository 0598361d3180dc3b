"""The map of a set that was replaced is kept until the new set has one."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from serve_app.errors import Conflict, InvalidRequest
from serve_app.records import Layout, MapMade
from serve_app.store.maps import Maps
from tests.unit.store.workbench import CARD, source_files

FILES = source_files(6)
CONTENTS = np.array([0, 2**64 - 1, 2**63, 5, 2**63 - 1, 7], np.uint64)


def layout(n=6, **more):
    return Layout(np.arange(2.0 * n).reshape(-1, 2), CONTENTS[:n], **more)


def mapped(bench, made=None):
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    return dataset, bench.reduce(dataset, layout(made=made or MapMade(6)))


def last(bench, dataset):
    """The last map of the present vectors, and its points by content."""
    version = bench.vectors.current(dataset.id).version
    maps = Maps(bench.database)
    pages = [maps.points(dataset.id, version=version, part=part, parts=3) for part in range(3)]
    table = pa.concat_tables([pa.ipc.open_stream(page).read_all() for page in pages])
    axes = zip(table.column("x").to_pylist(), table.column("y").to_pylist(), strict=True)
    return maps.last(dataset.id, version=version), dict(zip(table.column("content").to_pylist(), axes, strict=True))


def stored_maps(bench):
    """The jobs whose points are in the file, after old rows were deleted."""
    bench.delete_retired()
    with bench.database.read() as session:
        return {name for (name,) in session.q("SELECT DISTINCT job_id FROM points")}


def test_a_map_is_read_by_content_in_parts_that_share_no_point(bench):
    dataset, job = mapped(bench)
    found, points = last(bench, dataset)
    assert (found.job_id, found.count, found.made) == (job.id, 6, MapMade(6))
    assert points == {int(content): (2.0 * i, 2.0 * i + 1) for i, content in enumerate(CONTENTS)}


def test_the_map_of_a_replaced_set_is_kept_but_not_shown_until_the_next_one(bench):
    dataset, job = mapped(bench)
    before = last(bench, dataset)
    for _ in range(2):  # nobody asks for a map in between
        bench.embed(dataset, FILES, force=True)
        assert not bench.vectors.status(dataset.id).has_reduction
        assert last(bench, dataset) == before
        assert stored_maps(bench) == {job.id}
    newer = bench.reduce(dataset, layout(stayed=4, made=MapMade(4, placed=2)))
    assert (newer.reused, newer.processed, newer.total) == (4, 6, 6)
    assert stored_maps(bench) == {newer.id}
    assert last(bench, dataset)[0].made == MapMade(4, placed=2)
    assert bench.vectors.status(dataset.id).map == MapMade(4, placed=2)


def test_a_job_that_does_not_complete_leaves_the_kept_map(bench):
    dataset, job = mapped(bench)
    bench.embed(dataset, FILES, force=True)
    for end in (lambda claim: bench.jobs.cancel(dataset.id), lambda claim: bench.jobs.fail(claim.job.id, 1, "broken")):
        bench.jobs.create(dataset.id, "reduce")
        end(bench.jobs.claim("runner", holding=[], lease_s=30))
        assert stored_maps(bench) == {job.id}
    claim = bench.start(dataset, force=True)
    bench.jobs.fail(claim.job.id, claim.attempt, "broken")
    assert last(bench, dataset)[0].job_id == job.id


def test_the_map_of_another_space_is_not_kept(bench):
    dataset, _ = mapped(bench)
    bench.embed(dataset, FILES, card=replace(CARD, space_key="another"))
    assert last(bench, dataset) == (None, {})
    assert stored_maps(bench) == set()


def test_a_deleted_dataset_takes_the_kept_map_with_it(bench):
    dataset, _ = mapped(bench)
    bench.embed(dataset, FILES, force=True)
    bench.datasets.delete(dataset.id)
    assert stored_maps(bench) == set()


def test_a_map_without_contents_has_no_points_that_can_stay(bench):
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    bench.reduce(dataset)
    found, points = last(bench, dataset)
    assert (found.made, points) == (None, {})
    assert bench.vectors.status(dataset.id).map is None


def test_a_map_of_vectors_that_changed_is_not_read(bench):
    dataset, _ = mapped(bench)
    version = bench.vectors.current(dataset.id).version
    bench.embed(dataset, FILES, force=True)
    with pytest.raises(Conflict):
        Maps(bench.database).last(dataset.id, version=version)
    with pytest.raises(InvalidRequest):
        Maps(bench.database).points(dataset.id, version=version, part=3, parts=3)


def test_contents_of_another_number_than_the_points_are_refused(bench):
    dataset, job = mapped(bench)
    bench.jobs.create(dataset.id, "reduce")
    claim = bench.jobs.claim("runner", holding=[], lease_s=30)
    wrong = Layout(np.zeros((6, 2)), CONTENTS[:5])
    with pytest.raises(InvalidRequest):
        bench.vectors.put_points(claim.job.id, claim.attempt, bench.vectors.current(dataset.id).job_id, wrong)
    assert stored_maps(bench) == {job.id}
