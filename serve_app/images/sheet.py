"""Sheets of small pictures: squares side by side in one image."""

import io
from collections.abc import Sequence

from PIL import Image, ImageOps

SOURCE_PX = 128
"""The longer side of the thumbnails that a sheet is made of."""
QUALITY = 80


def sheet(pictures: Sequence[bytes | None], *, columns: int, size_px: int) -> bytes:
    """A WebP of the middle squares of JPEGs of our own, row by row in cells of `size_px`; None leaves a cell clear."""
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGBA", (columns * size_px, rows * size_px))
    for n, picture in enumerate(pictures):
        if picture is None:
            continue
        with Image.open(io.BytesIO(picture), formats=["JPEG"]) as small:
            cell = ImageOps.fit(small.convert("RGB"), (size_px, size_px))
        whole.paste(cell, (n % columns * size_px, n // columns * size_px))
    webp = io.BytesIO()
    whole.save(webp, "WEBP", quality=QUALITY, method=0)
    return webp.getvalue()
