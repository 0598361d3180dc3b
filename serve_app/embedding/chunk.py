"""From file tasks to a block: read once, hash, decode in threads; the forward pass is the caller's.

Knows files, images and blocks; knows neither the model nor how batches are formed.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import RefusedImage
from serve_app.images.decode import ImageLimits, Preprocessing, decode
from serve_app.records import Block, FileStamp, FileTask, Skip, Vectors
from serve_app.services import Refusal
from serve_app.sources.reading import Reader

Pixels = NDArray[np.uint8]
"""(S, S, 3) uint8 RGB, or (B, S, S, 3) for a batch."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What became of one task: pixels to embed, a known vector, or a skip."""

    task: FileTask
    stamp: FileStamp | None = None
    pixels: Pixels | None = None
    skip: Skip | None = None


def read_task(reader: Reader, root: str, task: FileTask, preprocessing: Preprocessing, limits: ImageLimits) -> ReadFile:
    """Read, hash and decode one file; every failure of the file is a skip, never an exception."""
    try:
        data, stamp = reader.read(root, task, max_bytes=limits.max_bytes)
        if stamp.content_hash in task.known_hashes:
            return ReadFile(task, stamp=stamp)
        return ReadFile(task, stamp=stamp, pixels=decode(data, preprocessing, limits))
    except RefusedImage as error:
        return ReadFile(task, skip=Skip(task.sample_id, task.file_name, error.reason, error.detail))


@dataclass(slots=True)
class Chunk:
    """The read files of one call, with equal contents embedded once."""

    files: list[ReadFile]
    _row_of_hash: dict[str, int] = field(default_factory=dict)
    _pixels: list[Pixels] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        reader: Reader,
        root: str,
        tasks: list[FileTask],
        preprocessing: Preprocessing,
        limits: ImageLimits,
        threads: Executor,
    ) -> "Chunk":
        """Read the tasks in `threads`; blocks until all are done."""
        files = list(threads.map(lambda task: read_task(reader, root, task, preprocessing, limits), tasks))
        chunk = cls(files)
        for file in files:
            if file.pixels is None or file.stamp is None or file.stamp.content_hash in chunk._row_of_hash:
                continue
            chunk._row_of_hash[file.stamp.content_hash] = len(chunk._pixels)
            chunk._pixels.append(file.pixels)
        return chunk

    @property
    def pixels(self) -> Pixels:
        """(B, S, S, 3) uint8: the distinct images to embed; B may be 0."""
        return np.stack(self._pixels) if self._pixels else np.empty((0, 0, 0, 3), np.uint8)

    def block(self, vectors: Vectors) -> Block:
        """Join the (B, D) vectors of `pixels` with what else was found.

        Raises:
            ValueError: the number of vectors is not that of `pixels`.
        """
        if len(vectors) != len(self._pixels):
            raise ValueError(f"{len(vectors)} vectors for {len(self._pixels)} images")
        embedded = [f for f in self.files if f.pixels is not None and f.stamp is not None]
        rows = [self._row_of_hash[f.stamp.content_hash] for f in embedded if f.stamp is not None]
        return Block(
            sample_ids=[f.task.sample_id for f in embedded],
            vectors=np.ascontiguousarray(vectors[rows]),
            stamps=[f.stamp for f in embedded if f.stamp is not None],
            known=[(f.task.sample_id, f.stamp) for f in self.files if f.stamp is not None and f.pixels is None],
            skips=[f.skip for f in self.files if f.skip is not None],
        )


def decode_uploads(
    images: list[bytes], preprocessing: Preprocessing, limits: ImageLimits, threads: Executor
) -> list[Pixels | Refusal]:
    """Decode encoded images in `threads`: (S, S, 3) pixels or a refusal a position, in order."""

    def one(data: bytes) -> Pixels | Refusal:
        try:
            return decode(data, preprocessing, limits)
        except RefusedImage as error:
            return Refusal(error.reason, error.detail)

    return list(threads.map(one, images))
