import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api import export

VECTOR = pa.list_(pa.float32(), 8)


def page(first, n):
    """Rows `first` … `first + n - 1` as one Arrow IPC stream."""
    numbers = range(first, first + n)
    table = pa.table(
        {
            "sample_id": pa.array([f"s{i}" for i in numbers], pa.string()),
            "label": pa.array([None if i % 3 else "rose" for i in numbers], pa.string()),
            "vector": pa.array([[float(i)] * 8 for i in numbers], VECTOR),
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def pages_of(sizes):
    """The pages of a table and how the store would hand them out."""
    starts = np.cumsum([0, *sizes])

    async def read(after):
        return page(int(starts[after]), sizes[after]), after + 1 if after + 1 < len(sizes) else None

    return read


async def streamed(sizes, format):
    read = pages_of(sizes)
    return [chunk async for chunk in export.arrow_stream(export.pages(await read(0), read), format)]


def read_back(content, format):
    if format == "arrow":
        return pa.ipc.open_stream(content).read_all()
    return pq.read_table(io.BytesIO(content))


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("sizes", [[0], [1], [5], [3, 3, 1], [4, 0, 2], [1] * 10], ids=str)
async def test_pages_join_to_one_file_of_every_row_in_order(format, sizes):
    table = read_back(b"".join(await streamed(sizes, format)), format)
    n = sum(sizes)
    assert table["sample_id"].to_pylist() == [f"s{i}" for i in range(n)]
    assert table["label"].to_pylist() == [None if i % 3 else "rose" for i in range(n)]
    assert table["vector"].to_pylist() == [[float(i)] * 8 for i in range(n)]
    assert table.schema.field("vector").type == VECTOR


async def test_each_page_is_a_row_group_and_leaves_before_the_next_is_read():
    sizes, asked = [10] * 5, []
    read = pages_of(sizes)

    async def noting(after):
        asked.append(after)
        return await read(after)

    chunks = export.arrow_stream(export.pages(await read(0), noting), "parquet")
    first = await anext(chunks)
    assert first.startswith(b"PAR1")
    assert asked == []
    rest = [chunk async for chunk in chunks]
    assert asked == [1, 2, 3, 4]
    assert pq.ParquetFile(io.BytesIO(first + b"".join(rest))).num_row_groups == 5


async def test_memory_does_not_grow_with_the_number_of_pages():
    big = page(0, 2000)

    async def read(after):
        return big, after + 1 if after < 100 else None

    n_bytes = 0
    tracemalloc.start()
    async for chunk in export.arrow_stream(export.pages((big, 0), read), "arrow"):
        n_bytes += len(chunk)
        del chunk
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_bytes > 50 * len(big)
    assert peak < 10 * len(big)


async def test_a_source_that_fails_leaves_no_complete_parquet_file():
    async def read(after):
        raise RuntimeError("replaced")

    chunks = export.arrow_stream(export.pages((page(0, 3), 1), read), "parquet")
    received = await anext(chunks)
    with pytest.raises(RuntimeError, match="replaced"):
        await anext(chunks)
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(received))


def points_page(rows):
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    types = {
        "sample_id": pa.string(),
        "x": pa.float64(),
        "y": pa.float64(),
        "file_name": pa.string(),
        "label": pa.string(),
    }
    table = pa.table(
        {name: pa.array(values, kind) for (name, kind), values in zip(types.items(), columns, strict=True)}
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


async def points_json(pages):
    async def source():
        for rows in pages:
            yield points_page(rows)

    return json.loads(b"".join([chunk async for chunk in export.points_json(source(), "d 1")]))


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
ROW = st.tuples(TEXT, st.floats(allow_nan=False, allow_infinity=False), st.floats(-1, 1), TEXT, st.none() | TEXT)


@given(pages=st.lists(st.lists(ROW, max_size=3), min_size=1, max_size=4))
async def test_points_of_any_pages_are_one_json_array(pages):
    points = await points_json(pages)
    expected = [row for rows in pages for row in rows]
    assert [(p["sampleId"], p["x"], p["y"], p["fileName"], p["label"]) for p in points] == expected


async def test_the_path_of_a_thumbnail_is_a_url_path():
    [point] = await points_json([[("a b/ü%?#.png", 0.0, 1.0, "a b/ü%?#.png", None)]])
    assert point["thumbnailPath"] == "/datasets/d%201/samples/a%20b/%C3%BC%25%3F%23.png/thumbnail"
