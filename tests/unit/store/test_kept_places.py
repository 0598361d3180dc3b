"""Places of an export's rows: found once for many pages, and anew after everything that may move a row."""

import pyarrow as pa
import pytest

from serve_app.errors import Conflict
from serve_app.store import kept_places, readout, sets
from tests.unit.store.workbench import source_files, vector_of

FILES = source_files(12)


@pytest.fixture
def dataset(bench):
    dataset = bench.register(FILES)
    bench.embed(dataset, FILES)
    return dataset


@pytest.fixture
def scans(monkeypatch):
    """How often the names of the whole set were read."""
    found = []
    places = readout.places
    monkeypatch.setattr(readout, "places", lambda *args: found.append(1) or places(*args))
    return found


def exported(bench, dataset, limit):
    """The sample ids and vectors of all pages."""
    found, after = [], -1
    version = bench.vectors.current(dataset.id).version
    while after is not None:
        page, after = bench.vectors.export(dataset.id, version=version, after=after, limit=limit)
        found.append(pa.ipc.open_stream(page).read_all())
    table = pa.concat_tables(found)
    return dict(zip(table.column("sample_id").to_pylist(), table.column("vector").to_pylist(), strict=True))


def check(found, files=FILES):
    assert list(found) == [file.sample_id for file in files]
    assert all(vector_of(name).tolist() == vector for name, vector in found.items())


@pytest.mark.parametrize("limit", [1, 3, 5, 12, 100])
@pytest.mark.parametrize("block_rows", [2, 5, 12, 100])
def test_pages_of_any_size_hold_each_sample_once(bench, dataset, monkeypatch, limit, block_rows):
    monkeypatch.setattr(kept_places, "BLOCK_ROWS", block_rows)
    check(exported(bench, dataset, limit))


def test_many_pages_read_the_names_once(bench, dataset, scans):
    check(exported(bench, dataset, 2))
    assert len(scans) == 1


def test_places_are_found_anew_after_a_write_and_after_a_checkpoint(bench, dataset, scans):
    exported(bench, dataset, 5)
    bench.register(source_files(1), name="another")
    exported(bench, dataset, 5)
    bench.database.checkpoint()
    check(exported(bench, dataset, 5))
    assert len(scans) == 3


def test_rows_that_moved_are_exported_whole(bench, dataset, scans):
    bench.embed(dataset, FILES, force=True)  # the old set lies before it in the table
    check(exported(bench, dataset, 5))
    bench.delete_retired()
    bench.database.checkpoint()
    check(exported(bench, dataset, 5))


def test_while_something_is_written_nothing_is_kept(bench, dataset, scans):
    with bench.database.transaction():
        exported(bench, dataset, 5)
        exported(bench, dataset, 5)
    assert len(scans) == 6


def test_a_session_from_before_a_write_uses_no_places_from_after_it(bench, dataset, scans):
    version, places = bench.vectors.current(dataset.id).version, bench.vectors._places
    quiet = bench.database.answers.quiet()
    bench.register(source_files(1), name="another")
    bench.vectors.export(dataset.id, version=version, after=-1, limit=5)
    with bench.database.read() as session:
        now = sets.of_version(session, dataset.id, version)
        assert places.of(session, now, -1, 5, quiet).num_rows == 5
    assert len(scans) == 2


def test_places_that_are_no_longer_true_are_refused(bench, dataset, monkeypatch):
    def moved(*args):
        page = right(*args)
        return page.set_column(1, "place", pa.array(page.column("place").to_numpy()[::-1]))

    right = readout.places
    monkeypatch.setattr(readout, "places", moved)
    with pytest.raises(Conflict, match="moved"):
        exported(bench, dataset, 5)


def test_during_a_checkpoint_nothing_is_quiet(bench, dataset, monkeypatch):
    said = []
    autocommit = bench.database.autocommit
    monkeypatch.setattr(
        bench.database,
        "autocommit",
        lambda **kwargs: said.append(bench.database.answers.quiet()) or autocommit(**kwargs),
    )
    before = bench.database.answers.quiet()
    bench.database.checkpoint()
    assert said == [None]
    assert bench.database.answers.quiet() not in (before, None)
