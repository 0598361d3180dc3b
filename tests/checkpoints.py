"""The checkpoint of services under test, made once: PyTorch and transformers take many seconds to import."""

import hashlib
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.converted_models import CACHE_DIR


def tiny_checkpoint(directory: Path) -> Path:
    """Write the folder that `make_tiny_checkpoint` makes by default, and return it."""
    maker = Path(__file__).with_name("tiny_models.py").read_bytes()
    made_by = maker + f"{version('torch')} {version('transformers')}".encode()
    kept = CACHE_DIR / f"tiny-dinov2-{hashlib.sha256(made_by).hexdigest()[:16]}"
    if not kept.exists():
        _make(kept)
    return shutil.copytree(kept, directory)


def _make(kept: Path) -> None:
    from tests.tiny_models import make_tiny_checkpoint

    CACHE_DIR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE_DIR) as workplace:
        unfinished = make_tiny_checkpoint(Path(workplace) / "unfinished")
        try:
            unfinished.rename(kept)
        except OSError:  # another process came first
            if not kept.exists():
                raise
