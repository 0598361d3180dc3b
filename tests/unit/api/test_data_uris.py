import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.api.data_uris import decode
from serve_app.errors import InvalidRequest


@given(
    st.binary(max_size=300), st.sampled_from(["image/png", "IMAGE/JPEG", "image/svg+xml", "image/png;name=a b.png", ""])
)
def test_any_bytes_come_back_whatever_image_type_is_claimed(data, media_type):
    assert decode(f"data:{media_type};base64,{base64.b64encode(data).decode()}") == data


@pytest.mark.parametrize("head", ["DATA:image/png;BASE64,", "data:application/octet-stream;base64,"])
def test_the_scheme_has_no_case_and_an_unknown_type_may_be_an_image(head):
    assert decode(head + "AQID") == b"\1\2\3"


@given(st.binary(max_size=300), st.sampled_from(["\n", "\r\n", " ", "\t"]), st.integers(1, 80), st.booleans())
def test_base64_may_be_broken_into_lines_and_lack_its_padding(data, line_break, line_chars, is_padded):
    text = base64.b64encode(data).decode()
    text = text if is_padded else text.rstrip("=")
    lines = [text[start : start + line_chars] for start in range(0, len(text), line_chars)]
    assert decode("data:image/png;base64," + line_break.join([*lines, ""])) == data


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "text cannot be embedded"),
        ("a red car", "text cannot be embedded"),
        ("iVBORw0KGgo=", "text cannot be embedded"),
        ("https://example.org/a.png", "URLs are not fetched"),
        ("s3://bucket/a.png", "URLs are not fetched"),
        ("file:///etc/passwd", "URLs are not fetched"),
        ("data:text/plain;base64,AQID", "not a data URI of another kind"),
        ("data:image/png,%89PNG", "not a data URI of another kind"),
        ("data:audio/wav;base64,AQID", "not a data URI of another kind"),
        ("data:image/png;base64,A", "not base64"),
        ("data:image/png;base64,AQI==", "not base64"),
        ("data:image/png;base64,AQ\0ID", "not base64"),
        ("data:image/png;base64,AQ-_", "not base64"),
        ("data:image/png;base64,é", "not base64"),
    ],
)
def test_anything_else_is_refused_for_what_it_is(text, says):
    with pytest.raises(InvalidRequest, match=says):
        decode(text)


@given(st.text(st.characters(), max_size=60) | st.from_regex(r"data:.{0,40}"))
def test_no_text_raises_anything_else(text):
    with contextlib.suppress(InvalidRequest):
        assert isinstance(decode(text), bytes)
