"""HEIC photographs are decoded upright, within the limits of all images."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import RefusedImage
from serve_app.images.decode import ImageLimits, decode, sniff_content_type, thumbnail
from serve_app.images.preprocessing import Preprocessing
from tests.heic import HEIC

SIDES = b"ispe" + struct.pack(">III", 0, 64, 64)  # the codec makes blocks of 64; a crop to 48 follows
SMALL = Preprocessing(resize_px=8, crop_px=8)


def reason(data, limits=None):
    with pytest.raises(RefusedImage) as refused:
        decode(data, SMALL, *([limits] if limits else []))
    return refused.value.reason


def test_a_photograph_is_decoded_upright():
    with Image.open(io.BytesIO(thumbnail(HEIC, 64))) as upright:
        assert upright.size == (48, 64)
        quarters = [upright.getpixel(at) for at in ((12, 16), (36, 16), (12, 48), (36, 48))]
    expected = [(250, 250, 250), (220, 30, 30), (30, 200, 40), (30, 30, 220)]
    assert np.abs(np.subtract(quarters, expected)).max() < 40
    assert decode(HEIC, SMALL).shape == (8, 8, 3)
    assert sniff_content_type(HEIC) == "image/heic"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (ImageLimits(max_bytes=600), "too_large"),
        (ImageLimits(max_pixels=3000), "too_many_pixels"),
        (ImageLimits(max_side_px=63), "too_many_pixels"),
        (ImageLimits(max_memory_bytes=30_000), "too_much_memory"),
    ],
)
def test_limits_hold_before_decoding(limits, expected):
    assert reason(HEIC, limits) == expected


@pytest.mark.parametrize("sides", [(16, 16), (32, 64), (640, 480)])
def test_pixels_of_other_sides_than_stated_are_refused(sides):
    """Limits know only what the header states, so the decoder must not make more."""
    assert SIDES in HEIC
    assert reason(HEIC.replace(SIDES, b"ispe" + struct.pack(">III", 0, *sides))) == "corrupt"


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_cut_photograph_is_refused(kept):
    assert reason(HEIC[: int(len(HEIC) * kept)]) in ("corrupt", "truncated")


def test_another_codec_in_the_container_is_named_as_such():
    assert b"hvc1" in HEIC
    assert reason(HEIC.replace(b"hvc1", b"vvc1")) in ("format_not_allowed", "corrupt")
