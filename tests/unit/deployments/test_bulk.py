"""What a bulk run reads and makes again, and may write over: only what runs over the same source have written."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.bulk import Bulk
from deployments.bulk_source import Part, Source
from serve_app import sources
from serve_app.errors import InvalidRequest
from serve_app.records import ModelCard

CARD = ModelCard("model", 4, "key", "cpu", "fp32")


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


def test_a_list_of_skips_that_belongs_to_no_part_is_kept(tmp_path):
    """It was written over."""
    skips = tmp_path / "out/part-00000.skipped.jsonl"
    skips.parent.mkdir()
    skips.write_text("mine")
    with pytest.raises(InvalidRequest, match=r"part-00000\.skipped\.jsonl belongs to no part"):
        Bulk(str(tmp_path / "in"), tmp_path / "out").run()
    assert skips.read_text() == "mine"


def test_a_list_of_skips_beside_an_unfinished_part_is_of_a_run_that_goes_on(tmp_path):
    (tmp_path / "part-00000.skipped.jsonl").write_text("")
    write(tmp_path / ".part-00000.unfinished", inputs="1", source="s3://b/c")
    Bulk("s3://b/c", tmp_path)._check_out()


def test_only_parts_of_an_earlier_run_are_removed(tmp_path):
    out = tmp_path / "out"
    write(out / "part-00001.parquet", inputs="1", source="s3://b/c")
    for name in ("part-00001.skipped.jsonl", "part-00001.csv", "part-00002.tar"):
        (out / name).write_text("x")

    bulk = Bulk("s3://b/c", out)
    bulk._check_out()
    bulk._remove_stale({"part-00000"})

    assert sorted(path.name for path in out.iterdir()) == ["part-00001.csv", "part-00002.tar"]


def files_of(folder):
    source = Source.find(str(folder))
    return [source.relative(path) for path in source.files]


def test_the_images_are_those_that_a_dataset_of_the_folder_has(tmp_path):
    for name in (
        "a.avif",
        "b.JPE",
        "c/d.jpg",
        "e.txt",
        "._b.jpg",
        ".hidden/f.jpg",
        "__MACOSX/g.jpg",
        "c/.h.png",
        "i.heic",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    listed = [file.file_name for page in sources.scan(tmp_path, "folder", None) for file in page]
    assert files_of(tmp_path) == sorted(listed) == ["a.avif", "b.JPE", "c/d.jpg", "i.heic"]


def test_a_source_in_a_hidden_folder_is_listed(tmp_path):
    write(tmp_path / ".cache/a.parquet")
    write(tmp_path / ".cache/.b.parquet")
    assert files_of(tmp_path / ".cache") == ["a.parquet"]
    assert files_of(tmp_path / ".cache/.b.parquet") == [".b.parquet"]


@pytest.mark.parametrize("mtime_ns", [10**18, 1])
def test_a_part_is_made_again_when_a_file_has_another_size_or_time(tmp_path, mtime_ns):
    def mark():
        [part] = Source.find(str(tmp_path)).parts(10)
        return part.mark(CARD, "image")["inputs"]

    path = tmp_path / "a.jpg"
    path.write_bytes(b"1")
    os.utime(path, ns=(1, 1))
    before = mark()
    assert mark() == before
    path.write_bytes(b"2" if mtime_ns > 1 else b"22")
    os.utime(path, ns=(1, mtime_ns))
    assert mark() != before


@pytest.mark.parametrize(("n_files", "n_tasks"), [(1, 1), (64, 1), (65, 2), (10_000, 157)])
def test_a_task_reads_many_files(n_files, n_tasks):
    assert Part(0, ["a.jpg"] * n_files, ["1 1"] * n_files).n_tasks == n_tasks
