"""Files of vectors that are damaged: whatever happens to their bytes, they are read or refused."""

import io
import random
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serve_app.errors import InvalidRequest
from serve_app.jobs.vector_file import VectorFile

ROWS = pa.table(
    {
        "sample_id": [f"a/{i}" for i in range(50)],
        "vector": pa.array(np.random.default_rng(0).standard_normal((50, 7)).tolist(), pa.list_(pa.float32())),
        "x": np.zeros(50),
        "y": np.zeros(50),
    }
)


def parquet(**options):
    sink = io.BytesIO()
    pq.write_table(ROWS, sink, **options)
    return sink.getvalue()


def arrow(new):
    sink = io.BytesIO()
    with new(sink, ROWS.schema) as writer:
        writer.write_table(ROWS, max_chunksize=20)
    return sink.getvalue()


FILES = {
    "Parquet": parquet(),
    "plain Parquet": parquet(compression="none", use_dictionary=False),
    "Arrow stream": arrow(pa.ipc.new_stream),
    "Arrow file": arrow(pa.ipc.new_file),
}


def damaged(content, chance):
    """A copy with one to five places changed, overwritten with an extreme number, or cut out."""
    content = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(len(content))
        match chance.randrange(3):
            case 0:
                content[place] = chance.randrange(256)
            case 1:
                content[place : place + 4] = chance.choice((b"\xff\xff\xff\x7f", bytes(4), b"\xff" * 4))
            case 2:
                del content[place : place + chance.randrange(1, 20)]
    return bytes(content)


def count_rows(content):
    """Rows read, refused ones included; None for a file that is refused."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        try:
            source = VectorFile(file)
            n_rows = sum(len(block.keys) + len(block.skips) for block in source.blocks())
        except InvalidRequest:
            return None
        assert n_rows == source.total
        return n_rows


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_read_or_refused_and_never_breaks_the_reader(kind):
    chance = random.Random(kind)
    assert count_rows(FILES[kind]) == 50
    answers = [count_rows(damaged(FILES[kind], chance)) for _ in range(150)]
    assert None in answers
    assert any(answers)
