"""Small real image files for tests on the cluster: seeded, distinct, of several formats."""

from pathlib import Path

import numpy as np
from PIL import Image


def make_photograph(path: Path, seed: int, *, width: int = 96, height: int = 72) -> Path:
    """Write a smooth seeded colour image; the suffix decides the format."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def make_folder(root: Path, *, n_images: int, labels: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> Path:
    """A folder of `n_images` in sub-folders named by label, JPEG and PNG in turn."""
    for i in range(n_images):
        suffix = ".jpg" if i % 2 else ".png"
        make_photograph(root / labels[i % len(labels)] / f"{i:04d}{suffix}", seed * 10_000 + i)
    return root
