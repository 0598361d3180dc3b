"""The demo's images: photographs from the package scikit-image, cut into tiles.

The label of a tile is its photograph, so that neighbours can be judged by label. Files are read directly from the
installed package, because `skimage.data` would download missing ones.
"""

import importlib.util
import tempfile
from pathlib import Path

from PIL import Image

from serve_app.errors import Unavailable

TILES_A_SIDE = 4
PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "cells": "cell.png",
    "clock": "clock_motion.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "handwriting": "text.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}


def write_tiles(folder: Path) -> Path:
    """Cut every photograph into 4 × 4 tiles, `folder/<label>/<label>-<row><column>.png`, and return the folder.

    An existing folder is complete and is not changed.

    Raises:
        Unavailable: scikit-image is not installed, or has fewer than two of the photographs.
    """
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise Unavailable("the demo's images come from scikit-image: pip install scikit-image, or give your own folder")
    sources = Path(spec.origin).parent / "data"
    found = {label: sources / name for label, name in PHOTOGRAPHS.items() if (sources / name).is_file()}
    if len(found) < 2:
        raise Unavailable("the installed scikit-image carries no photographs; give the demo your own folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".cutting-") as workplace:
        unfinished = Path(workplace) / folder.name
        for label, source in found.items():
            (unfinished / label).mkdir(parents=True)
            with Image.open(source) as photograph:
                _cut(photograph, unfinished / label)
        unfinished.rename(folder)
    return folder


def _cut(photograph: Image.Image, folder: Path) -> None:
    """Write the tiles of one photograph, without the pixels at the edges that do not fill a tile."""
    width_px, height_px = (side // TILES_A_SIDE for side in photograph.size)
    for row in range(TILES_A_SIDE):
        for column in range(TILES_A_SIDE):
            left, top = column * width_px, row * height_px
            tile = photograph.crop((left, top, left + width_px, top + height_px))
            tile.save(folder / f"{folder.name}-{row}{column}.png")
