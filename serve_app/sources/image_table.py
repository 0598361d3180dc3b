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
from serve_app.sources.listing import LABEL_COLUMNS, MAX_IMAGES, label_text
from serve_app.sources.parquet_pages import Weight, weigh_column
from serve_app.sources.parquet_table import Table, can_be_cells, read_footer, refusing
from serve_app.sources.shortage import raise_shortage

SUFFIXES = frozenset({b".parquet"})
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes", "content")
MAX_COLUMNS_CHARS = 200
MAX_GROUP_BYTES = 1 << 29
KEPT_GROUPS = 2


class ImageColumns(NamedTuple):
    """The column of encoded images (for a struct, the path of its field), and the column of labels."""

    image: str
    label: str | None
    class_names: list[str] | None


class Row(NamedTuple):
    """A row with an image: its number in the file, label, row group, number in the group, and further cells."""

    number: int
    label: str | None
    group: int
    row: int
    values: dict[str, object]


def columns_of(file: IO[bytes], name: str) -> ImageColumns | None:
    """The image and label columns of a Parquet file; None if it has no images.

    Raises:
        InvalidRequest: the file is not Parquet.
        Unavailable: there is not enough memory.
    """
    return _columns(Table(file, name).schema)


def check(file: IO[bytes], name: str) -> None:
    """Make sure that a Parquet file has a column of images. Raises `InvalidRequest`, which says what it has instead."""
    _require_images(Table(file, name).schema, name)


def rows(file: IO[bytes], name: str, notices: list[str] | None = None) -> Iterator[Row]:
    """The rows of a Parquet file, in its order; the column of images is not read.

    Raises:
        InvalidRequest: the file is not Parquet, has no column of images, or is damaged.
        Unavailable: there is not enough memory.
    """
    table = Table(file, name)
    columns = _require_images(table.schema, name)
    notices = [] if notices is None else notices
    notices.extend(_unread_labels(table.schema, columns, name))
    further = table.further(_read_otherwise(table.schema, columns), notices)
    number = 0
    for group in range(table.metadata.num_row_groups):
        n_rows = table.metadata.row_group(group).num_rows
        cells = _cells(table, group, columns, further) if columns.label or further else repeat((None, {}), n_rows)
        with refusing(repr(name)):
            for row, (label, values) in zip(range(n_rows), cells, strict=True):
                yield Row(number, label, group, row, values)
                number += 1


class RowGroups:
    """Keeps the last few row groups of image columns; threads that need the same group read it once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[object, Future[pa.ChunkedArray]] = OrderedDict()

    def image(self, key: object, open_file: Callable[[], IO[bytes]], group: int, row: int, mark: str = "") -> bytes:
        """The encoded image of a row.

        Args:
            key: identifies the file; it differs once the file has changed.
            open_file: opens the file; it is called only if the group is not kept.
            group: the number of the group in the file.
            row: the number of the row in the group.
            mark: `mark_of` the file as it was listed; nothing if that is unknown.

        Raises:
            RefusedImage: the file is another one than listed (changed), the row is empty, or the group is too_large or
                corrupt.
            Unavailable: there is not enough memory.
        """
        key = (key, mark)
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
            self._fill(future, (key, group), open_file, mark)
        column = future.result()
        if row >= len(column):
            raise RefusedImage("changed: its file was replaced since it was listed; rescan the dataset")
        data = column[row].as_py()
        if not data:
            raise RefusedImage("empty: the row holds no bytes")
        return bytes(data)

    def _fill(
        self, future: "Future[pa.ChunkedArray]", kept: tuple[Any, int], open_file: Callable[[], IO[bytes]], mark: str
    ) -> None:
        try:
            future.set_result(_image_group(open_file, kept[1], mark))
        except BaseException as error:
            with self._lock:
                self._kept.pop(kept, None)  # the next caller tries again
            future.set_exception(error)


def mark_of(file: IO[bytes], name: str) -> str:
    """A text that tells a Parquet file from one that takes its place. Raises `InvalidRequest` if it is not Parquet."""
    return f"{read_footer(file, name):08x}"


def _image_group(open_file: Callable[[], IO[bytes]], group: int, mark: str) -> pa.ChunkedArray:
    with open_file() as file:
        try:
            if mark and mark_of(file, "the file") != mark:
                raise _changed()
            columns = columns_of(file, "the file")
            metadata = pq.read_metadata(file)
            if columns is None or group >= metadata.num_row_groups:
                raise _changed()
            weight = _require_small(file, metadata.row_group(group), columns.image)
            found = _read_column(file, metadata, group, columns.image, weight)
        except RefusedImage:
            raise
        except (pa.ArrowException, InvalidRequest, OSError, ValueError, KeyError) as error:
            raise_shortage(error)
            if isinstance(error, OSError) and error.errno:  # pyarrow's own OSErrors, for damaged files, have no number
                raise unreadable(error) from None
            raise RefusedImage("corrupt: its Parquet file cannot be read") from None
    if not pa.types.is_struct(found.type):
        return found
    return pa.chunked_array([chunk.field("bytes") for chunk in found.chunks], found.type.field("bytes").type)


def _changed() -> RefusedImage:
    return RefusedImage("changed: its file was replaced since it was listed; rescan the dataset")


def _read_column(file: IO[bytes], metadata: pq.FileMetaData, group: int, image: str, weight: Weight) -> pa.ChunkedArray:
    """The column of images of one row group, at most `MAX_GROUP_BYTES`."""
    if not weight.widest_bytes:
        # Images of equal bytes are stored once as a dictionary, and stay so in memory.
        table = pq.ParquetFile(file, metadata=metadata, read_dictionary=[image])
        return table.read_row_group(group, columns=[image], use_threads=False).column(0)
    table, chunks, n_bytes = pq.ParquetFile(file, metadata=metadata), [], 0
    rows = weight.rows_at_once(MAX_IMAGES)
    for batch in table.iter_batches(rows, row_groups=[group], columns=[image], use_threads=False):
        chunks.append(batch.column(0))
        n_bytes += batch.nbytes
        if n_bytes > MAX_GROUP_BYTES:
            raise _too_large(n_bytes, metadata.row_group(group).num_rows)
    return pa.chunked_array(chunks)


def _require_small(file: IO[bytes], group: pq.RowGroupMetaData, image: str) -> Weight:
    """The weight of the column of images; what the footer states does not count, since pages may hold more."""
    [column] = [at for at in range(group.num_columns) if group.column(at).path_in_schema == image]
    weight = weigh_column(file, group.column(column), "the file")
    if weight.decoded_bytes > min(MAX_GROUP_BYTES, weight.allowed_bytes) or group.num_rows > MAX_IMAGES:
        raise _too_large(weight.decoded_bytes, group.num_rows)
    return weight


def _too_large(n_bytes: int, n_rows: int) -> RefusedImage:
    return RefusedImage(
        f"too_large: its row group has {n_bytes:,} bytes of images in {n_rows:,} rows: over {MAX_GROUP_BYTES:,}, "
        f"or over {MAX_IMAGES:,} rows, or far more than its place in the file; write the file with smaller row groups"
    )


def _cells(
    table: Table, group: int, columns: ImageColumns, further: list[str]
) -> Iterator[tuple[str | None, dict[str, object]]]:
    """The label and the further values of each row of a group."""
    features = _features(table.schema)
    names = [_class_names(features, column) for column in further]
    for batch in table.batches([columns.label] if columns.label else [], [group], further=further):
        for cells in zip(*batch, strict=True):
            label, values = (cells[0], cells[1:]) if columns.label else (None, cells)
            named = map(_named, values, names)
            yield label_text(_named(label, columns.class_names)), dict(zip(further, named, strict=True))


def _named(value: object, class_names: list[str] | None) -> object:
    """The name of a class by its number; other values as they are."""
    if class_names is not None and isinstance(value, int) and 0 <= value < len(class_names):
        return str(class_names[value])
    return value


def _class_names(features: dict[str, dict[str, Any]], column: str) -> list[str] | None:
    names = features.get(column, {}).get("names")
    return names if isinstance(names, list) else None


def _read_otherwise(schema: pa.Schema, columns: ImageColumns) -> list[str]:
    """The columns of images and labels."""
    image = columns.image if columns.image in schema.names else columns.image.removesuffix(".bytes")
    return [image, *([columns.label] if columns.label else [])]


def _columns(schema: pa.Schema) -> ImageColumns | None:
    features = _features(schema)
    image = _image_column(schema, features)
    if image is None:
        return None
    label = next((key for key in _label_columns(schema, features) if can_be_cells(schema.field(key).type)), None)
    return ImageColumns(image, label, _class_names(features, label) if label else None)


def _label_columns(schema: pa.Schema, features: dict[str, dict[str, Any]]) -> list[str]:
    classes = [key for key, feature in features.items() if feature.get("_type") == "ClassLabel"]
    return [key for key in (*LABEL_COLUMNS, *classes) if schema.names.count(key) == 1]


def _unread_labels(schema: pa.Schema, columns: ImageColumns, name: str) -> Iterator[str]:
    """A sentence if columns look like labels, but none of them could be read."""
    named = [key for key in LABEL_COLUMNS if key in schema.names]
    if columns.label is None and named:
        problem = (
            f"is of type {str(schema.field(named[0]).type)[:100]}"
            if schema.names.count(named[0]) == 1
            else "is there twice"
        )
        yield f"the column {named[0]!r} of {name!r} {problem}, so its images have no labels"


def _require_images(schema: pa.Schema, name: str) -> ImageColumns:
    columns = _columns(schema)
    if columns is not None:
        return columns
    lists = next((column for column in schema.names if _holds_lists_of_images(schema, column)), None)
    if lists is not None:
        raise InvalidRequest(f"the column {lists!r} of {name!r} holds lists of images; write one image in each row")
    found = ", ".join(schema.names)[:MAX_COLUMNS_CHARS] or "none"
    raise InvalidRequest(
        f"{name!r} has no column of images: a struct with 'bytes', or binary named 'image' (columns found: {found})"
    )


def _holds_lists_of_images(schema: pa.Schema, column: str) -> bool:
    kind = schema.field(schema.get_field_index(column)).type if schema.names.count(column) == 1 else pa.null()
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and _has_bytes(kind.value_type))


def _image_column(schema: pa.Schema, features: dict[str, dict[str, Any]]) -> str | None:
    declared = [key for key, feature in features.items() if feature.get("_type") == "Image"]
    named = [name for name in schema.names if name.casefold() in IMAGE_COLUMNS]
    for name in (*declared, *named, *schema.names):
        if schema.names.count(name) != 1:
            continue
        kind = schema.field(name).type
        if _has_bytes(kind):
            return f"{name}.bytes"
        if _is_binary(kind) and (name in declared or name in named):
            return str(name)
    return None


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether the values are structs with encoded images in `bytes`."""
    at = kind.get_field_index("bytes") if pa.types.is_struct(kind) else -1
    return bool(at >= 0 and _is_binary(kind.field(at).type))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The features that the library `datasets` writes into the schema's metadata, by column."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {str(key): value for key, value in features.items() if isinstance(value, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
