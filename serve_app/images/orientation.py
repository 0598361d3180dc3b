"""EXIF orientation: the turn that makes a stored image upright, and its effect on coordinates."""

from typing import NamedTuple

from PIL import ExifTags, Image

from serve_app.images.resampling import Box


class Turn(NamedTuple):
    """The turn that makes a stored image upright; a box of the upright image swaps axes first, then is mirrored."""

    transpose: Image.Transpose
    swaps_axes: bool
    mirrors_x: bool
    mirrors_y: bool

    def stored_box(self, box: Box, width: int, height: int) -> Box:
        """The place of a box of the upright image in the stored image of `width` x `height`."""
        left, top, right, bottom = box
        if self.swaps_axes:
            left, top, right, bottom = top, left, bottom, right
        if self.mirrors_x:
            left, right = width - right, width - left
        if self.mirrors_y:
            top, bottom = height - bottom, height - top
        return left, top, right, bottom


TURNS = {
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: Turn(Image.Transpose.ROTATE_180, False, True, True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: Turn(Image.Transpose.TRANSPOSE, True, False, False),
    6: Turn(Image.Transpose.ROTATE_270, True, False, True),
    7: Turn(Image.Transpose.TRANSVERSE, True, True, True),
    8: Turn(Image.Transpose.ROTATE_90, True, True, False),
}
"""The turns by EXIF orientation; an image with 1 or an unknown value is already upright."""


def turn_of(image: Image.Image) -> Turn | None:
    """The turn that a loaded image's EXIF or XMP asks for; None if the image is upright or says nothing usable."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block may raise any error, but the image itself is still usable
        return None
