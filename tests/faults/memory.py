"""How much memory every process of a service takes, and folders of many files to make it take more."""

import struct
import threading
import zlib
from collections import defaultdict
from pathlib import Path
from types import TracebackType

import numpy as np

from tests.faults.service import Service

PERIOD_S = 0.5
FILES_A_FOLDER = 1000


class MemoryWatch:
    """The most that each process took while the block ran, in MB by pid."""

    def __init__(self, service: Service) -> None:
        self.peaks_mb: dict[int, float] = defaultdict(float)
        self.titles: dict[int, str] = {}
        self._service = service
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def grown_mb(self, before: "MemoryWatch") -> dict[str, float]:
        """By how much the peak of each process is above that of an earlier watch; by title, the largest first."""
        pids = self.peaks_mb.keys() & before.peaks_mb.keys()
        grown = {f"{self.titles[pid]} ({pid})": self.peaks_mb[pid] - before.peaks_mb[pid] for pid in pids}
        return dict(sorted(grown.items(), key=lambda item: -item[1]))

    def _run(self) -> None:
        while not self._is_over.wait(PERIOD_S):
            for process in self._service.processes():
                self.titles[process.pid] = " ".join(process.title.split())[:60]
            for pid, megabytes in self._service.memory_mb().items():
                self.peaks_mb[pid] = max(self.peaks_mb[pid], megabytes)


def make_crowd(root: Path, n_images: int, *, seed: int) -> Path:
    """A folder of so many distinct PNGs of 8 x 8 pixels, written as fast as the disk takes them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n_images, 8, 8, 3), np.uint8)
    rows = np.concatenate([np.zeros((n_images, 8, 1), np.uint8), pixels.reshape(n_images, 8, 24)], axis=2)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    for number in range(n_images):
        folder = root / f"{number // FILES_A_FOLDER:03d}"
        if number % FILES_A_FOLDER == 0:
            folder.mkdir(parents=True)
        data = _chunk(b"IDAT", zlib.compress(rows[number].tobytes(), 0))
        (folder / f"{number:06d}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + _chunk(b"IEND", b""))
    return root


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_minute_checkpoint(directory: Path) -> Path:
    """A model of 768 dimensions that takes about a millisecond an image: one layer, four patches."""
    from tests.tiny_models import make_tiny_checkpoint  # imports PyTorch, which most fault tests do not need

    return make_tiny_checkpoint(directory, layers=1, image_px=28, resize_px=32, crop_px=28)
