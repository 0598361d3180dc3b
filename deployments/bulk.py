"""`constellate bulk`: reads images with Ray Data and writes Parquet, for sets too large for the database.

The source is cut into parts in a fixed order. A few long-lived actors (`EmbedImages`) embed a part, and its file gets
its name when it is complete. A run after an interruption therefore embeds only the missing parts.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from deployments.bulk_source import SHARE, Part, Source
from deployments.client import EmbeddingClient, EmbedImages
from serve_app.errors import InvalidRequest
from serve_app.records import ModelCard

log = logging.getLogger("constellate.bulk")

BATCH_IMAGES = 256
SKIPS = ".skipped.jsonl"


@dataclass(slots=True)
class BulkState:
    """The progress of a run; `reused` of the `done` parts existed before the run."""

    parts: int
    done: int = 0
    reused: int = 0
    embedded: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Bulk:
    """A run over a source.

    Args:
        source: see `Source.find`.
        out: the folder for the parts, `part-00000.parquet` and `part-00000.skipped.jsonl`.
        column: the column of a Parquet source with the images' bytes (plain, or in a struct's `bytes`).
        part_images: the number of image files in a part; a Parquet file is one part whatever its size.
        actors: the number of actors that read images and wait for vectors.
    """

    source: str
    out: Path
    column: str = "image"
    part_images: int = 10_000
    actors: int = 2
    _found: Source = field(init=False)
    _card: ModelCard = field(init=False)

    def run(self, on_part: Callable[[BulkState], object] = lambda state: None) -> BulkState:
        """Embed the missing parts; Ray must be connected to the service's cluster.

        Raises:
            InvalidRequest: the source has no images, a table lacks the column, or `out` holds what other runs wrote.
            Unavailable: the service does not answer; finished parts stay.
        """
        self._check_out()
        self._found = Source.find(self.source)
        self._card = EmbeddingClient().describe()
        self.out.mkdir(parents=True, exist_ok=True)
        parts = self._found.parts(self.part_images)
        self._remove_stale({part.name for part in parts})
        state = BulkState(len(parts))
        for part in parts:
            if self._is_done(part):
                state.reused += 1
            else:
                self._embed(part, state)
            state.done += 1
            on_part(state)
        return state

    def _mark(self, part: Part) -> dict[str, str]:
        return part.mark(self._card, self.column) | {"source": self.source}

    def _check_out(self) -> None:
        """Refuse a folder in which this run would replace or remove what no run over the same source has written."""
        source = Path(self.source)
        if "://" not in self.source and (self.out == source or source in self.out.parents):
            raise InvalidRequest(f"{self.out} is in the source {self.source}: choose a folder outside it")
        for path in sorted(self.out.glob("part-*.parquet")):
            if not self._is_ours(path):
                raise InvalidRequest(f"{path} was not written from {self.source}: choose another folder")
        for path in sorted(self.out.glob(f"part-*{SKIPS}")):
            name = path.name.removesuffix(SKIPS)
            # A run that ended between the two renames of `_embed` has left the list beside the unfinished part.
            if not (self._is_ours(self._path(name)) or self._is_ours(self._unfinished(name))):
                raise InvalidRequest(f"{path} belongs to no part from {self.source}: choose another folder")

    def _is_ours(self, path: Path) -> bool:
        """Whether an earlier run over this source wrote the file; each says so in its metadata."""
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException):
            return False
        return b"inputs" in metadata and metadata.get(b"source") == self.source.encode()

    def _is_done(self, part: Part) -> bool:
        """Whether the part's file exists and was made from the same inputs by the same model."""
        try:
            metadata = pq.read_schema(self._path(part.name)).metadata or {}
        except (OSError, pa.ArrowException):
            return False
        wanted = self._mark(part)
        return all(metadata.get(name.encode()) == value.encode() for name, value in wanted.items())

    def _embed(self, part: Part, state: BulkState) -> None:
        """Write the list of skips and then the part, because the part's presence means that it is done."""
        unfinished, unfinished_skips = self._unfinished(part.name), self.out / f".{part.name}{SKIPS}"
        embedded = skipped = 0
        writer: pq.ParquetWriter | None = None
        try:
            with unfinished_skips.open("w", encoding="utf-8", errors="backslashreplace") as list_of_skips:
                for table, refused in self._batches(part):
                    if writer is None:
                        schema = table.schema.with_metadata(self._mark(part))
                        writer = pq.ParquetWriter(unfinished, schema, compression="zstd")
                    writer.write_table(table.cast(schema))
                    list_of_skips.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in refused)
                    embedded += table.num_rows
                    skipped += len(refused)
            if writer is None:
                raise InvalidRequest(f"{part.inputs[0]} has no rows")
        finally:
            if writer is not None:
                writer.close()
        unfinished_skips.replace(self.out / f"{part.name}{SKIPS}")
        unfinished.replace(self._path(part.name))
        state.embedded += embedded
        state.skipped += skipped

    def _batches(self, part: Part) -> Iterator[tuple[pa.Table, list[dict[str, Any]]]]:
        """Embedded rows, and refused rows with their reason and detail, batch by batch."""
        column = self.column if self._found.is_table else "bytes"
        if self._found.is_table and column not in (names := self._found.columns(part)):
            raise InvalidRequest(
                f"{self._found.relative(part.inputs[0])} has no column {column!r}; it has {', '.join(names)} (--column)"
            )
        embedded = (
            self._found.read(part)
            .map_batches(
                EmbedImages,
                fn_constructor_args=[column],
                compute=ray.data.ActorPoolStrategy(size=self.actors),
                batch_size=BATCH_IMAGES,
                **SHARE,
            )
            .drop_columns([column], **SHARE)
        )
        for table in embedded.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield self._split(table)

    def _split(self, table: pa.Table) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Split a batch into rows with vectors, in the columns that imports read, and refused rows."""
        if "path" in table.column_names and not self._found.is_table:
            names = [self._found.relative(path) for path in table["path"].to_pylist()]
            table = table.drop_columns(["path"]).add_column(0, "file_name", pa.array(names, pa.string()))
        is_refused = np.array([reason is not None for reason in table["refusal"].to_pylist()], bool)
        refused = table.filter(pa.array(is_refused)).drop_columns(["embedding"])
        good = table.filter(pa.array(~is_refused)).drop_columns(["refusal"])
        values = [chunk.to_numpy(zero_copy_only=False) for chunk in good["embedding"].chunks]
        flat = np.concatenate([np.stack(chunk).reshape(-1) for chunk in values if len(chunk)] or [np.empty(0)])
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat.astype(np.float32)), self._card.dimension)
        return good.drop_columns(["embedding"]).append_column("vector", vectors), [
            {name: value for name, value in row.items() if not isinstance(value, bytes)} for row in refused.to_pylist()
        ]

    def _path(self, name: str) -> Path:
        return self.out / f"{name}.parquet"

    def _unfinished(self, name: str) -> Path:
        return self.out / f".{name}.unfinished"

    def _remove_stale(self, wanted: set[str]) -> None:
        """Remove parts of an earlier, longer listing, because their images may also be in the parts of this one."""
        for path in self.out.glob("part-*.parquet"):  # each is ours, see `_check_out`
            if path.stem not in wanted:
                log.info("removing %s: the source has no such part any more", path.name)
                path.unlink()
                path.with_name(f"{path.stem}{SKIPS}").unlink(missing_ok=True)
