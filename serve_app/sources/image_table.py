"""Parquet files that contain the images, like datasets of the Hugging Face hub.

The image column is a struct of `bytes` and `path` (the `Image` feature of `datasets`) or plain binary. A listing reads
labels but not that column. Reading a row reads its whole row group, because Parquet cannot find a smaller part of a
column. The last few groups stay in memory, because the rows of a group are read one after another.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import repeat
from threading import Lock
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from serve_app.errors import InvalidRequest, RefusedImage
from serve_app.sources.files import unreadable
from serve_app.sources.listing import LABEL_COLUMNS, label_text
from serve_app.sources.shortage import raise_shortage

SUFFIXES = frozenset({b".parquet"})
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes", "content")
BATCH_ROWS = 2000
MAX_GROUP_BYTES = 1 << 29
KEPT_GROUPS = 2


class ImageColumns(NamedTuple):
    """The column of encoded images (for a struct, the path of its field), and the column of labels."""

    image: str
    label: str | None
    class_names: list[str] | None


class Row(NamedTuple):
    """A row with an image: its number in the file, its label, its row group, and its number in the group."""

    number: int
    label: str | None
    group: int
    row: int


def columns_of(file: IO[bytes], name: str) -> ImageColumns | None:
    """The image and label columns of a Parquet file; None if it has no images.

    Raises:
        InvalidRequest: the file is not Parquet.
    """
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(f"{name!r} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    features = _features(schema)
    image = _image_column(schema, features)
    if image is None:
        return None
    classes = [key for key, feature in features.items() if feature.get("_type") == "ClassLabel"]
    known = [key for key in (*LABEL_COLUMNS, "labels", *classes) if key in schema.names]
    label = next((key for key in known if _can_label(schema.field(key).type)), None)
    names = features.get(label, {}).get("names") if label else None
    return ImageColumns(image, label, names if isinstance(names, list) else None)


def rows(file: IO[bytes], name: str) -> Iterator[Row]:
    """The rows of a Parquet file, in its order; only the column of labels is read.

    Raises:
        InvalidRequest: the file is not Parquet, has no column of images, or is damaged.
    """
    columns = columns_of(file, name)
    if columns is None:
        raise InvalidRequest(f"{name!r} has no column of images: a struct with 'bytes', or binary named 'image'")
    number = 0
    try:
        table = pq.ParquetFile(file)
        for group in range(table.metadata.num_row_groups):
            n_rows = table.metadata.row_group(group).num_rows
            labels = _labels(table, group, columns) if columns.label else repeat(None)
            for row, label in zip(range(n_rows), labels, strict=False):
                yield Row(number, label, group, row)
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise InvalidRequest(
            f"{name!r} cannot be read as Parquet after row {number}: {str(error).splitlines()[0]}"
        ) from None


class RowGroups:
    """Keeps the last few row groups of image columns; threads that need the same group read it once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[object, Future[pa.ChunkedArray]] = OrderedDict()

    def image(self, key: object, open_file: Callable[[], IO[bytes]], group: int, row: int) -> bytes:
        """The encoded image of a row.

        Args:
            key: identifies the file; it differs once the file has changed.
            open_file: opens the file; it is called only if the group is not kept.
            group: the number of the group in the file.
            row: the number of the row in the group.

        Raises:
            RefusedImage: the row or group is missing (changed), the row is empty, or the group is too_large or corrupt.
        """
        with self._lock:
            future = self._kept.get((key, group))
            is_mine = future is None
            if future is None:
                future = self._kept[key, group] = Future()
                while len(self._kept) > KEPT_GROUPS:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end((key, group))
        if is_mine:
            self._fill(future, (key, group), open_file)
        column = future.result()
        if row >= len(column):
            raise RefusedImage("changed: its file was replaced since it was listed; rescan the dataset")
        data = column[row].as_py()
        if not data:
            raise RefusedImage("empty: the row holds no bytes")
        return bytes(data)

    def _fill(
        self, future: "Future[pa.ChunkedArray]", kept: tuple[Any, int], open_file: Callable[[], IO[bytes]]
    ) -> None:
        try:
            future.set_result(_image_group(open_file, kept[1]))
        except BaseException as error:
            with self._lock:
                self._kept.pop(kept, None)  # the next caller tries again
            future.set_exception(error)


def _image_group(open_file: Callable[[], IO[bytes]], group: int) -> pa.ChunkedArray:
    with open_file() as file:
        try:
            columns = columns_of(file, "the file")
            table = pq.ParquetFile(file)
            if columns is None or group >= table.metadata.num_row_groups:
                raise RefusedImage("changed: its file was replaced since it was listed; rescan the dataset")
            about = table.metadata.row_group(group)
            parts = [about.column(i) for i in range(about.num_columns)]
            size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == columns.image)
            if size > MAX_GROUP_BYTES:
                raise RefusedImage(
                    f"too_large: its row group has {size:,} bytes of images, more than {MAX_GROUP_BYTES:,}; "
                    "write the file with smaller row groups"
                )
            found = table.read_row_group(group, columns=[columns.image], use_threads=False).column(0)
        except RefusedImage:
            raise
        except (pa.ArrowException, InvalidRequest, OSError) as error:
            raise_shortage(error)
            if isinstance(error, OSError) and error.errno:  # pyarrow's own OSErrors, for damaged files, have no number
                raise unreadable(error) from None
            raise RefusedImage("corrupt: its Parquet file cannot be read") from None
    if not pa.types.is_struct(found.type):
        return found
    return pa.chunked_array([chunk.field("bytes") for chunk in found.chunks], found.type.field("bytes").type)


def _labels(table: pq.ParquetFile, group: int, columns: ImageColumns) -> Iterator[str | None]:
    for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=[columns.label], use_threads=False):
        for value in batch.column(0).to_pylist():
            names = columns.class_names
            if names is not None and isinstance(value, int) and 0 <= value < len(names):
                yield str(names[value])
            else:
                yield label_text(value)


def _image_column(schema: pa.Schema, features: dict[str, dict[str, Any]]) -> str | None:
    declared = [key for key, feature in features.items() if feature.get("_type") == "Image"]
    named = [name for name in schema.names if name.casefold() in IMAGE_COLUMNS]
    for name in (*declared, *named, *schema.names):
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type):
            return f"{name}.bytes"
        if _is_binary(kind) and (name in declared or name in named):
            return str(name)
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _can_label(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    return any(is_kind(kind) for is_kind in (*texts, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The features that the library `datasets` writes into the schema's metadata, by column."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {str(key): value for key, value in features.items() if isinstance(value, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
