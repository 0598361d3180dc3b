import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api import strict_json
from serve_app.errors import InvalidRequest, MalformedJson

REFUSED = {
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "negative infinity": b'{"a": -Infinity}',
    "a float that overflows": b'{"a": 1e400}',
    "an integer of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a raw lone surrogate": b'{"a": "\xed\xa0\x80"}',
    "duplicate keys": b'{"a": 1, "a": 2}',
    "nested duplicate keys": b'[{"b": {"a": 1, "a": 1}}]',
    "100,000 open brackets": b"[" * 100_000,
    "bad UTF-8": b'{"a": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "nothing": b"",
    "half an object": b'{"a": ',
    "a trailing comma": b'{"a": 1,}',
    "two values": b"1 2",
    "a raw control character": b'{"a": "\x00"}',
    "single quotes": b"{'a': 1}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_json_is_refused(body):
    with pytest.raises(MalformedJson):
        strict_json.check(body)


@pytest.mark.parametrize("body", [rb'{"a": "\ud800"}', rb'{"\udc00": 1}'], ids=["a text", "a key"])
def test_a_lone_surrogate_that_is_spelled_out_is_json_and_no_text(body):
    with pytest.raises(InvalidRequest) as refused:
        strict_json.check(body)
    assert refused.value.status == 422


def test_the_reason_never_quotes_the_body():
    with pytest.raises(MalformedJson) as refused:
        strict_json.check(b'{"secret-key": 1, "secret-key": 2}')
    assert "secret" not in refused.value.detail


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans())
def test_every_json_value_is_accepted(value, ensure_ascii):
    strict_json.check(json.dumps(value, ensure_ascii=ensure_ascii).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_accepted_or_refused_as_malformed(body):
    try:
        strict_json.check(body)
    except InvalidRequest:
        return
    json.loads(body)


def test_a_comma_in_a_text_is_no_value():
    words = "red, green, blue, " * 1000
    strict_json.check(json.dumps({"texts": [words] * 10, "escaped": 'a \\" , b'}).encode())
    with pytest.raises(InvalidRequest, match="more than"):
        strict_json.check(json.dumps({"texts": ["a"] * (strict_json.MAX_VALUES + 2)}).encode())
