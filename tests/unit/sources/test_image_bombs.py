"""Small Parquet files with images that would take much memory, read in a process of their own whose peak is told."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app import sources
from serve_app.config import Settings
from serve_app.sources.reading import Reader

MIB = 1 << 20
READ = """
import resource, sys
from pathlib import Path
from serve_app.config import Settings
from serve_app.errors import RefusedImage
from serve_app.records import SourceFile
from serve_app.sources import image_table, parquet_pages
from serve_app.sources.reading import Place, Reader
import pyarrow, pyarrow.parquet

image_table.MAX_GROUP_BYTES, parquet_pages.FREE_BYTES = 32 << 20, 16 << 20
reader = Reader(Settings(dataset_roots=(Path(sys.argv[1]),)))
file = SourceFile("a", "a", None, 0, 0, str(Place("row", 0, 0, "a.parquet")))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    reader.read(sys.argv[1], file, max_bytes=1 << 30)
except RefusedImage as error:
    print(error.reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def repeats(path):
    """160 texts of a MiB, each of which is said to be the one before it."""
    table = pa.table({"image": [b"x" * MIB] * 160})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"image": "DELTA_BYTE_ARRAY"}, compression="zstd")


def lies(path):
    """A text of 160 MiB in a file whose footer states that it has five bytes."""
    pq.write_table(pa.table({"image": [b"x" * (160 * MIB)]}), path, use_dictionary=False, compression="zstd")
    stated = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    number = varint(2 * stated)
    assert number in data[start:]
    path.write_bytes(data[:start] + data[start:].replace(number, b"\x8a" + b"\x80" * (len(number) - 2) + b"\0"))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 5


def varint(value):
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


@pytest.mark.parametrize("write", [repeats, lies])
def test_a_small_file_of_many_bytes_is_refused_before_it_takes_memory(tmp_path, write):
    write(tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 32 * 1024
    found = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True)
    reason, grown_mib = found.stdout.split()
    assert reason == "too_large"
    assert int(grown_mib) < 100  # the images have 160


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_images_and_labels_that_are_encoded_as_differences_are_read(tmp_path, encoding):
    """They were skipped as corrupt, and their labels refused: pyarrow cannot read them as dictionaries."""
    images = [b"one", b"one and a half", b"two"]
    structs = pa.array([{"bytes": data} for data in images])
    columns = {"image.bytes": encoding, "label": encoding}
    table = pa.table({"image": structs, "label": ["cat", "cat", "catfish"]})
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False, column_encoding=columns)
    listed = [file for page in sources.scan(tmp_path, "parquet", None) for file in page]
    assert [file.label for file in listed] == ["cat", "cat", "catfish"]
    reader = Reader(Settings(dataset_roots=(tmp_path,)))
    assert [reader.read(str(tmp_path), file, max_bytes=99)[0] for file in listed] == images
