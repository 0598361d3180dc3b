"""Turns the files of a chunk into a block: threads read, hash and decode each file; the caller embeds the pixels.

This module knows files, images and blocks. It knows neither the model nor the batches.
"""

from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import RefusedImage
from serve_app.images.decode import Header, ImageLimits, Preprocessing, decode, decode_with_header, header_of
from serve_app.records import Block, FileStamp, Skip, SourceFile, VectorArray
from serve_app.sources.reading import Reader

Pixels = NDArray[Any]
"""(S, S, 3) RGB of the type of `Preprocessing.dtype`, or (B, S, S, 3) for a batch."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """The outcome of reading one file: pixels to embed, a known vector, or a skip."""

    file: SourceFile
    stamp: FileStamp | None = None
    pixels: Pixels | None = None
    skip: Skip | None = None


def read_file(
    reader: Reader, root: str, file: SourceFile, preprocessing: Preprocessing, limits: ImageLimits
) -> ReadFile:
    """Read, hash and decode one file; a file that fails becomes a skip and never an exception."""
    try:
        data, stamp = reader.read(root, file, max_bytes=limits.max_bytes)
        if stamp.content_hash in file.known_hashes:
            return ReadFile(file, stamp=_with(stamp, header_of(data)))
        pixels, header = decode_with_header(data, preprocessing, limits)
        return ReadFile(file, stamp=_with(stamp, header), pixels=pixels)
    except RefusedImage as error:
        return ReadFile(file, skip=Skip.of(error, file.sample_id, file.file_name))


def _with(stamp: FileStamp, header: Header | None) -> FileStamp:
    return stamp if header is None else replace(stamp, **header._asdict())


@dataclass(slots=True)
class Chunk:
    """The files of one call after reading; files with equal contents are embedded once."""

    read: list[ReadFile]
    _row_of_hash: dict[str, int] = field(default_factory=dict)
    _pixels: list[Pixels] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        reader: Reader,
        root: str,
        files: list[SourceFile],
        preprocessing: Preprocessing,
        limits: ImageLimits,
        threads: Executor,
    ) -> "Chunk":
        """Read the files in `threads`, and block until all are done."""
        chunk = cls(list(threads.map(lambda file: read_file(reader, root, file, preprocessing, limits), files)))
        for found in chunk.read:
            if found.pixels is None or found.stamp is None or found.stamp.content_hash in chunk._row_of_hash:
                continue
            chunk._row_of_hash[found.stamp.content_hash] = len(chunk._pixels)
            chunk._pixels.append(found.pixels)
        return chunk

    @property
    def pixels(self) -> Pixels:
        """The distinct images to embed, (B, S, S, 3); B may be 0."""
        return np.stack(self._pixels) if self._pixels else np.empty((0, 0, 0, 3), np.uint8)

    def block(self, vectors: VectorArray, space_key: str) -> Block:
        """Combine the (B, D) vectors of `pixels`, of this space, with the known vectors and the skips.

        Raises:
            ValueError: the number of vectors differs from the number of `pixels`.
        """
        if len(vectors) != len(self._pixels):
            raise ValueError(f"{len(vectors)} vectors for {len(self._pixels)} images")
        embedded = [(f, f.stamp) for f in self.read if f.pixels is not None and f.stamp is not None]
        rows = [self._row_of_hash[stamp.content_hash] for _, stamp in embedded]
        return Block(
            sample_ids=[f.file.sample_id for f, _ in embedded],
            vectors=np.ascontiguousarray(vectors[rows]),
            stamps=[stamp for _, stamp in embedded],
            known=[(f.file.sample_id, f.stamp) for f in self.read if f.stamp is not None and f.pixels is None],
            skips=[f.skip for f in self.read if f.skip is not None],
            space_key=space_key,
        )


def decode_uploads(
    images: list[bytes], preprocessing: Preprocessing, limits: ImageLimits, threads: Executor
) -> list[Pixels | Skip]:
    """Decode encoded images in `threads`; each result is (S, S, 3) pixels or a skip, in the order of `images`."""

    def one(data: bytes) -> Pixels | Skip:
        try:
            return decode(data, preprocessing, limits)
        except RefusedImage as error:
            return Skip.of(error)

    return list(threads.map(one, images))
