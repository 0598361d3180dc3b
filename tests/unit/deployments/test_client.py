"""How a client encodes pictures: one odd picture never fails the others of its batch."""

import io

import numpy as np
import pytest
from PIL import Image

from deployments.client import _encoded


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "F", "I", "I;16", "RGBX", "PA", "RGBa"],
)
def test_a_picture_of_any_mode_is_encoded(mode):
    """A CMYK or float picture raised an OSError for its whole batch."""
    with Image.open(io.BytesIO(_encoded(Image.new(mode, (3, 2))))) as decoded:
        assert decoded.size == (3, 2)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 7), np.uint8), np.zeros((2, 2, 3), np.float64), np.zeros((0, 0, 3), np.uint8)]
)
def test_pixels_that_are_no_picture_are_left_to_the_replica_to_refuse(pixels):
    assert _encoded(pixels) == b""
