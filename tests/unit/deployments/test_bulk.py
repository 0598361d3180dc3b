"""What a bulk run may write over and remove: only what runs over the same source have written."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.bulk import Bulk
from serve_app.errors import InvalidRequest


def write(path, **metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), path)


@pytest.mark.parametrize("inside", ["", "vectors", "a/b"])
def test_a_folder_in_the_source_is_refused_before_anything_is_written(tmp_path, inside):
    write(tmp_path / "part-00000.parquet")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidRequest, match="outside it"):
        Bulk(str(tmp_path), tmp_path / inside).run()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mark", [{}, {"inputs": "1"}, {"inputs": "1", "source": "s3://other"}])
def test_parts_of_the_user_and_of_another_source_are_kept(tmp_path, mark):
    write(tmp_path / "out/part-00007.parquet", **mark)
    with pytest.raises(InvalidRequest, match="part-00007"):
        Bulk(str(tmp_path / "in"), tmp_path / "out").run()
    assert (tmp_path / "out/part-00007.parquet").exists()


def test_only_parts_of_an_earlier_run_are_removed(tmp_path):
    out = tmp_path / "out"
    write(out / "part-00001.parquet", inputs="1", source="s3://b/c")
    for name in ("part-00001.skipped.jsonl", "part-00001.csv", "part-00002.tar"):
        (out / name).write_text("x")

    bulk = Bulk("s3://b/c", out)
    bulk._check_out()
    bulk._remove_stale({"part-00000"})

    assert sorted(path.name for path in out.iterdir()) == ["part-00001.csv", "part-00002.tar"]
