"""EXIF orientation: how a stored image becomes upright, and what that does to coordinates."""

from typing import NamedTuple

from PIL import ExifTags, Image

from serve_app.images.resampling import Box


class Turn(NamedTuple):
    """What makes a stored image upright: swap the axes where `swaps_axes`, then mirror along the stored axes."""

    transpose: Image.Transpose
    swaps_axes: bool
    mirrors_x: bool
    mirrors_y: bool

    def stored_box(self, box: Box, width: int, height: int) -> Box:
        """Where a box of the upright image lies in the stored one of `width` x `height`."""
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
"""By EXIF orientation; 1 and anything unknown is upright already."""


def turn_of(image: Image.Image) -> Turn | None:
    """The turn that a loaded image's EXIF or XMP asks for; None when it is upright or says nothing usable."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block raises anything, and is no reason to lose the picture
        return None
