"""The images of a bulk run: lists them, cuts them into parts in a fixed order, and reads a part with Ray Data."""

import hashlib
import math
import os
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pyarrow import fs

from serve_app.errors import InvalidRequest
from serve_app.policy import SMALL_ACTOR_CPUS
from serve_app.records import ModelCard
from serve_app.sources import folder, image_table
from serve_app.sources.listing import is_left_out

SHARE: dict[str, Any] = {"num_cpus": SMALL_ACTOR_CPUS}
"""The CPU share of the actors, which read and wait; the service's replicas do the computing."""


FILES_A_TASK = 64
"""A task often needs a new process, which takes seconds of CPU time to start."""


@dataclass(frozen=True, slots=True)
class Part:
    """The inputs of one output file: image files, or one Parquet file of image bytes, with their sizes and times."""

    number: int
    inputs: list[str]
    stamps: list[str]

    @property
    def name(self) -> str:
        """The name of the output file without suffix."""
        return f"part-{self.number:05d}"

    @property
    def n_tasks(self) -> int:
        """The number of tasks that read image files; Ray Data would take one for each of a few files."""
        return math.ceil(len(self.inputs) / FILES_A_TASK)

    def mark(self, card: ModelCard, column: str) -> dict[str, str]:
        """The output's schema metadata: the vector space, the model, and the inputs' names, sizes and times."""
        text = "\0".join([column, *self.inputs, *self.stamps])  # to read the inputs takes as long as to embed them
        inputs = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
        return {"space_key": card.space_key, "model_name": card.name, "inputs": inputs}


@dataclass(frozen=True, slots=True)
class Source:
    """The place of the images.

    Names in the output are relative to the folder `base`. `files` are image files, or Parquet files if `is_table`,
    with their sizes and times of change.
    """

    filesystem: fs.FileSystem
    base: str
    files: dict[str, str]
    is_table: bool

    @classmethod
    def find(cls, source: str) -> "Source":
        """List a file or, as datasets do, a folder: a local path, or a URI that pyarrow knows (`s3://…`).

        Raises:
            InvalidRequest: the source cannot be listed, or has no images, or mixes images and Parquet files.
        """
        try:
            filesystem, path = fs.FileSystem.from_uri(source) if "://" in source else (fs.LocalFileSystem(), source)
            info = filesystem.get_file_info(path)
            found = [info]
            if info.type != fs.FileType.File:
                selector = fs.FileSelector(path, recursive=True)
                found = [entry for entry in filesystem.get_file_info(selector) if _is_listed(entry, path)]
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InvalidRequest(f"{source} cannot be listed: {str(error).splitlines()[0]}") from None
        files = {entry.path: f"{entry.size} {entry.mtime_ns}" for entry in sorted(found, key=lambda entry: entry.path)}
        tables = {file: stamp for file, stamp in files.items() if _suffix(file) in image_table.SUFFIXES}
        images = {file: stamp for file, stamp in files.items() if _suffix(file) in folder.EXTENSIONS}
        if not tables and not images:
            raise InvalidRequest(f"{source} has neither images nor Parquet files")
        if tables and images:
            raise InvalidRequest(f"{source} has both images and Parquet files: name a folder of one kind")
        base = path if info.type == fs.FileType.Directory else path.rpartition("/")[0]
        return cls(filesystem, base.rstrip("/"), tables or images, is_table=bool(tables))

    def parts(self, part_images: int) -> list[Part]:
        """The parts in their fixed order; each has `part_images` image files or one table."""
        size = 1 if self.is_table else part_images
        files = iter(self.files.items())
        chunks = iter(lambda: dict(islice(files, size)), {})
        return [Part(number, list(chunk), list(chunk.values())) for number, chunk in enumerate(chunks)]

    def read(self, part: Part) -> Any:
        """The part as a Ray dataset."""
        if self.is_table:
            [file] = part.inputs
            numbers = [{"number": number} for number in range(self._open(file).num_row_groups)]
            # `read_parquet` would need a whole CPU for its listing, which a small machine never has free.
            groups = ray.data.from_items(numbers, override_num_blocks=max(1, len(numbers)))
            read = partial(_read_row_group, file=file, filesystem=self.filesystem)
            return groups.map_batches(read, batch_size=1, batch_format="pyarrow", **SHARE)
        options: dict[str, Any] = {"include_paths": True, "override_num_blocks": part.n_tasks, **SHARE}
        return ray.data.read_binary_files(part.inputs, filesystem=self.filesystem, **options)

    def columns(self, part: Part) -> list[str]:
        """The column names of a part that is a table. Raises `InvalidRequest` if the file is not Parquet."""
        try:
            names: list[str] = self._open(part.inputs[0]).schema_arrow.names
        except (OSError, pa.ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InvalidRequest(f"{self.relative(part.inputs[0])} cannot be read as Parquet: {reason}") from None
        return names

    def _open(self, file: str) -> pq.ParquetFile:
        return pq.ParquetFile(self.filesystem.open_input_file(file))

    def relative(self, path: str) -> str:
        """A path relative to `base`, as the output names it."""
        return path.removeprefix(self.base).lstrip("/")


def _is_listed(entry: fs.FileInfo, base: str) -> bool:
    """Whether an entry is a file, and neither it nor a folder between it and the base is hidden or of a system."""
    names = os.fsencode(entry.path.removeprefix(base)).split(b"/")
    return bool(entry.is_file) and not any(is_left_out(name) for name in names)


def _suffix(path: str) -> bytes:
    return os.path.splitext(os.fsencode(path))[1].lower()


def _read_row_group(batch: pa.Table, file: str, filesystem: fs.FileSystem) -> pa.Table:
    """One row group of a Parquet file; it is read in a Ray task."""
    [number] = batch["number"].to_pylist()
    return pq.ParquetFile(filesystem.open_input_file(file)).read_row_group(number)
