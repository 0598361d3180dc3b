"""Row groups are small: a block that fills them is written once, and rows that are added to one copy little."""

import shutil

import duckdb
import pytest

from serve_app.store import opening
from serve_app.store.database import Database
from serve_app.store.operations import Backups
from serve_app.store.schema import ROW_GROUP_ROWS
from tests.invariants import check_invariants
from tests.unit.store.workbench import CARD, Workbench, block_of, lay_blank, source_files

FILES = source_files(2 * ROW_GROUP_ROWS)
VECTOR_BYTES = len(FILES) * CARD.dimension * 4


@pytest.fixture
def log(bench):
    """The log beside the database, after a block that fills two row groups was staged."""
    claim = bench.start(bench.register(FILES))
    bench.database.checkpoint()
    bench.vectors.put_block(claim.job.id, claim.attempt, 1, block_of(FILES))
    return bench.database.path.with_name(bench.database.path.name + ".wal")


def test_a_block_that_fills_row_groups_goes_into_the_file_and_not_into_the_log_too(bench, log):
    """Each vector was written to the log, and again by the checkpoint, with all of its row group of 122,880 rows."""
    assert log.stat().st_size < VECTOR_BYTES / 4
    assert bench.database.path.stat().st_size > VECTOR_BYTES / 2


def test_a_block_in_the_file_is_there_after_a_crash(bench, log, tmp_path):
    for file in (bench.database.path, log):
        shutil.copy(file, tmp_path)
    with Database(tmp_path / bench.database.path.name).read() as session:
        assert session.value(f"SELECT count(DISTINCT sample_id) FROM vectors_{CARD.dimension}") == len(FILES)


def test_a_file_with_large_row_groups_takes_further_rows(path, monkeypatch):
    """A file of an older version keeps its groups, the last of which may have more rows than a new one gets."""
    lay_blank(path)
    with monkeypatch.context() as older:
        older.setattr(opening, "ROW_GROUP_ROWS", 60 * ROW_GROUP_ROWS)
        bench = Workbench(path)
        dataset = bench.register(FILES)
        bench.embed(dataset, FILES)
        bench.database.close()
    bench = Workbench(path)
    bench.embed(dataset, FILES, force=True)
    with bench.database.read() as session:
        assert session.value(f"SELECT count(*) FROM vectors_{CARD.dimension}") == 2 * len(FILES)
        check_invariants(session)
    bench.database.close()


def test_a_backup_has_the_same_row_groups(bench):
    bench.embed(bench.register(FILES), FILES)
    copy = Backups(bench.database).create()
    with duckdb.connect(copy.path, read_only=True) as connection:
        found = connection.execute(
            f"SELECT DISTINCT row_group_id, count FROM pragma_storage_info('vectors_{CARD.dimension}') "
            "WHERE column_name = 'sample_id' AND segment_type <> 'VALIDITY'"
        ).fetchall()
    assert max(count for _, count in found) == ROW_GROUP_ROWS
