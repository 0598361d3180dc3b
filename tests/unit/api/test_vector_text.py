import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serve_app.api.vector_text import ITEMS_AT_ONCE, as_base64, as_numbers, json_array

VECTORS = arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@given(VECTORS)
def test_json_gives_every_bit_back(vector):
    assert np.array_equal(np.array(json.loads(as_numbers(vector)), np.float32), vector)


@given(VECTORS)
def test_base64_is_little_endian_float32(vector):
    for given_order in ("<f4", ">f4"):
        decoded = np.frombuffer(base64.b64decode(json.loads(as_base64(vector.astype(given_order)))), "<f4")
        assert np.array_equal(decoded, vector)


@pytest.mark.parametrize("n_items", [0, 1, ITEMS_AT_ONCE, ITEMS_AT_ONCE + 1, 100])
async def test_items_make_one_array_in_pieces(n_items):
    pieces = [piece async for piece in json_array(str(i) for i in range(n_items))]
    assert json.loads("".join(pieces)) == list(range(n_items))
    assert len(pieces) == 1 + -(-n_items // ITEMS_AT_ONCE)
