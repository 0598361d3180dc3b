"""Small files of vectors or columns that would take much memory are refused before anything is decoded."""

import io
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.errors import InvalidRequest
from serve_app.jobs import arrow_messages, column_file
from serve_app.jobs.vector_file import VectorFile

MIB = 1 << 20
MANY = 40_000_000
FLOATS = pa.list_(pa.float32())
HUGE_TEXT = "x" * (8 * MIB)


def parquet(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def arrow(new, table, compression="zstd"):
    sink = io.BytesIO()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def arrow_file(table):
    return arrow(pa.ipc.new_file, table)


def arrow_stream(table):
    return arrow(pa.ipc.new_stream, table)


def zeros():
    """One row with a list of 40 million zeros, which take 160 MB."""
    values = pa.array(np.zeros(MANY, np.float32))
    vector = pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), values)
    return pa.table({"sample_id": ["a"], "vector": vector, "note": [1]})


def same_key():
    """2,000 rows with the same key of 8 MiB, which would take 16 GiB when they are written out."""
    key = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), [HUGE_TEXT])
    return pa.table({"sample_id": key, "vector": pa.array([[1.0, 2.0]] * 2000, FLOATS), "note": range(2000)})


def same_view():
    """As `same_key`, in a column of views."""
    view = np.zeros(16, np.uint8)
    view[:4] = np.frombuffer(np.int32(len(HUGE_TEXT)).tobytes(), np.uint8)
    view[4:8] = ord("x")
    buffers = [None, pa.py_buffer(np.tile(view, 2000).tobytes()), pa.py_buffer(HUGE_TEXT.encode())]
    key = pa.Array.from_buffers(pa.string_view(), 2000, buffers)
    return same_key().set_column(0, "sample_id", key)


def same_note():
    return pa.table({"sample_id": [f"{n}" for n in range(2000)], "note": same_key()["sample_id"]})


def nulls():
    """Rows that take no byte of the file, and 8 each when they are typed."""
    return pa.table({"sample_id": pa.nulls(MANY), "note": pa.nulls(MANY)})


VECTORS = [
    pytest.param(make, content, id=f"{make.__name__} as {content.__name__}")
    for make, content in [
        (zeros, parquet),
        (zeros, arrow_file),
        (zeros, arrow_stream),
        (same_key, parquet),
        (same_key, arrow_file),
        (same_key, arrow_stream),
        (same_view, arrow_stream),
    ]
]
COLUMNS = [
    *VECTORS[1:],  # a vector in a Parquet file is no column, and is not read
    pytest.param(same_note, parquet, id="same_note as parquet"),
    pytest.param(same_note, arrow_file, id="same_note as arrow_file"),
    pytest.param(nulls, arrow_stream, id="nulls as arrow_stream"),
]


@pytest.fixture
def spent():
    """Tells how many bytes pyarrow has had at once since the test began to read."""
    default = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(default)
    pa.set_memory_pool(pool)
    yield lambda: pool.max_memory() or 0
    pa.set_memory_pool(default)


@pytest.mark.parametrize(("make", "content"), VECTORS)
def test_a_small_file_of_vectors_that_takes_much_memory_is_refused(make, content, spent):
    with uploaded(content(make())) as file:
        before = spent()
        with pytest.raises(InvalidRequest, match=r"become more than|bytes in a cell"):
            for _ in VectorFile(file).blocks():
                pass
    assert spent() - before < 100 * MIB


@pytest.mark.parametrize(("make", "content"), COLUMNS)
def test_a_small_file_of_columns_that_takes_much_memory_is_refused(make, content):
    with uploaded(content(make())) as file, pytest.raises(InvalidRequest, match=r"become more than|columns take more"):
        column_file.read(file)


def uploaded(content):
    assert len(content) < 300_000
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.flush()
    return file


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("compression", ["zstd", "lz4", None])
def test_the_bytes_of_a_file_are_told_without_decoding(new, compression, monkeypatch):
    indices, offsets, numbers, dictionary = 4 * 10_000, 4 * 10_001, 8 * 10_000, 4 * 3 + 2
    table = pa.table({"key": pa.array(["a", "b"] * 5000).dictionary_encode(), "vector": pa.array([[1.0]] * 10_000)})
    with uploaded(arrow(new, table, compression)) as file:
        n_bytes = indices + offsets + numbers + dictionary
        monkeypatch.setattr(arrow_messages, "MAX_RATIO", 0)
        monkeypatch.setattr(arrow_messages, "FREE_BYTES", n_bytes)
        arrow_messages.check(file)
        monkeypatch.setattr(arrow_messages, "FREE_BYTES", n_bytes - 1)
        with pytest.raises(InvalidRequest):
            arrow_messages.check(file)


def test_a_parquet_column_with_a_dot_in_its_name_is_bounded_too():
    dotted = zeros().select(["sample_id", "vector"]).rename_columns(["sample_id", "a.b"])
    with uploaded(parquet(dotted)) as file, pytest.raises(InvalidRequest, match="become more than"):
        column_file.read(file)


def test_texts_that_repeat_are_no_bomb():
    """200,000 cells of a few labels are a usual file, which dictionaries and compression make small."""
    labels = pa.array([f"label {n % 5}" for n in range(200_000)]).dictionary_encode()
    table = pa.table({"sample_id": [f"{n}" for n in range(200_000)], "label": labels, "note": labels})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    with tempfile.TemporaryFile() as file:
        file.write(sink.getvalue())
        found = column_file.read(file)
    assert found.given.types == {"note": "text"}
    assert pa.ipc.open_stream(found.given.table).read_all()["c0"].to_pylist() == labels.to_pylist()
