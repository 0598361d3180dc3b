"""The route that hands a dataset, or what a filter chooses of it, to other tools: CSV, COCO, YOLO, plain lists.

Every answer is a stream that needs memory for one page, for COCO the chosen ids, and for YOLO's boxes the chosen names
and boxes too; it breaks off across a rescan.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
from fastapi import APIRouter, Query
from starlette.responses import StreamingResponse

from serve_app.api import export, problems
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.embeddings import EXPORT_PAGE_ROWS, attachment, vector_pages
from serve_app.api.schemas import SetModel, Where
from serve_app.config import Settings
from serve_app.errors import Conflict, DatasetNotFound, InvalidFilter, InvalidRequest, NoEmbeddings
from serve_app.jobs.column_file import TAG_SEPARATOR
from serve_app.records import Dataset
from serve_app.services import Services
from serve_app.sources import coco_subset, yolo
from serve_app.sources.detection import CONTAINERS
from serve_app.sources.files import decode_name
from serve_app.sources.roots import check_annotations
from serve_app.sources.yolo_boxes import Boxes, Chosen
from serve_app.store.columns import Columns
from serve_app.store.datasets import Datasets
from serve_app.store.filtering import TAG
from serve_app.urls import is_url, parse

router = APIRouter(prefix="/datasets/{dataset_id}/export", tags=["columns"])

HandoverFormat = Literal["csv", "coco", "yolo", "yolo-zip", "list"]
Pages = Callable[[], AsyncIterator[bytes]]
"""Begins the pages of `Columns.rows` anew; the first one is read already."""

MEDIA_TYPES: dict[HandoverFormat, str] = {
    "csv": "text/csv; charset=utf-8",
    "coco": "application/json",
    "yolo": "text/plain; charset=utf-8",
    "yolo-zip": "application/zip",
    "list": "text/plain; charset=utf-8",
}
SUFFIXES: dict[HandoverFormat, str] = {"csv": "csv", "coco": "json", "yolo": "txt", "yolo-zip": "zip", "list": "txt"}
ROWS_AT_ONCE = 500
ZIP_BYTES = 1 << 18

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_CONTENT: dict[str, Any] = {
    "text/csv": _BINARY,
    "application/json": {
        "schema": {"type": "object", "examples": [{"images": [], "annotations": [], "categories": []}]}
    },
    "text/plain": _BINARY,
    "application/zip": _BINARY,
}


@router.get(
    "",
    response_class=StreamingResponse,
    responses={
        200: {"description": "the chosen samples", "content": _CONTENT},
        **problems.documented(InvalidFilter, InvalidRequest, NoEmbeddings, DatasetNotFound, Conflict),
    },
)
async def export_samples(
    dataset_id: str,
    services: ServicesNow,
    context: ContextNow,
    format: HandoverFormat = "csv",
    where: Where = None,
    with_vectors: Annotated[bool, Query(description="CSV only: model_name, vector, x and y too")] = False,
    model: SetModel = None,
) -> StreamingResponse:
    """Hand the samples, or those that a filter chooses, to another tool; the dataset need not have vectors.

    `csv` has sample_id, file_name, label, the stored columns, and tags separated by `/`. `coco` keeps the entries of a
    registered COCO file; another dataset's labels become categories, without boxes. `yolo-zip` has the boxes of a COCO
    file as YOLO takes them, with `data.yaml`. `yolo` has the path of an image in each line, `list` the file name below
    the root.
    """
    dataset = await services.writer.ask(Datasets.get, dataset_id)
    if with_vectors:
        if format != "csv":
            raise InvalidRequest("only CSV can have vectors here; embeddings/export has Parquet and Arrow")
        body = _csv(await vector_pages(services, dataset.id, where, EXPORT_PAGE_ROWS, model))
    else:
        body = await _body(services, context.settings, dataset, format, where, model)
    headers = {"Content-Disposition": attachment(f"{dataset.name}.{SUFFIXES[format]}"), "Cache-Control": "no-store"}
    return StreamingResponse(body, headers=headers, media_type=MEDIA_TYPES[format])


async def _body(
    services: Services,
    settings: Settings,
    dataset: Dataset,
    format: HandoverFormat,
    where: str | None,
    model: str | None,
) -> AsyncIterator[bytes]:
    if format in ("yolo", "yolo-zip", "list"):
        await _require_listable(services, dataset, where, model)
    pages = await _pages(services, dataset.id, where, model)
    if format == "csv":
        return _csv(pages())
    if format == "coco":
        return await _coco(settings, dataset, pages)
    if format == "yolo-zip":
        return await _yolo(services, settings, dataset, pages)
    return _lines(pages(), (lambda name: _path(dataset.root, name)) if format == "yolo" else decode_name)


async def _pages(services: Services, dataset_id: str, where: str | None, model: str | None) -> Pages:
    async def read(after: str | None) -> export.Page[str]:
        return await services.writer.ask(
            Columns.rows, dataset_id, after=after, limit=EXPORT_PAGE_ROWS, where=where, model=model
        )

    first = await read(None)
    return lambda: export.pages(first, read)


async def _require_listable(services: Services, dataset: Dataset, where: str | None, model: str | None) -> None:
    if dataset.format in CONTAINERS:
        raise InvalidRequest("the images lie inside tar or Parquet files and have no paths; export csv or coco")
    count, example = await services.writer.ask(Columns.unlistable, dataset.id, where, model)
    if count:
        raise InvalidRequest(
            f"{count:,} file names have line breaks, such as {example!r}, and no list can hold them; export csv or coco"
        )


async def _csv(pages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    is_first = True
    async for page in pages:
        yield await asyncio.to_thread(_csv_text, page, with_header=is_first)
        is_first = False


def _csv_text(page: bytes, *, with_header: bool) -> bytes:
    table = export.table(page)
    for name, separator in ((TAG, TAG_SEPARATOR), ("vector", " ")):
        if name in table.column_names:
            at, values = table.column_names.index(name), table.column(name)
            texts = pc.binary_join(values.cast(pa.list_(pa.string())), separator)
            table = table.set_column(at, name, texts)
    sink = pa.BufferOutputStream()
    csv.write_csv(table, sink, csv.WriteOptions(include_header=with_header))
    text: bytes = sink.getvalue().to_pybytes()
    return text


async def _lines(pages: AsyncIterator[bytes], line: Callable[[str], bytes]) -> AsyncIterator[bytes]:
    async for page in pages:
        names = export.table(page).column("file_name").to_pylist()
        yield b"".join(line(name) + b"\n" for name in names)


def _path(root: str, name: str) -> bytes:
    """The absolute path or the URL of an image."""
    if is_url(name):
        return name.encode()
    return str(parse(root).child(name)).encode() if is_url(root) else os.path.join(os.fsencode(root), decode_name(name))


async def _coco(settings: Settings, dataset: Dataset, pages: Pages) -> AsyncIterator[bytes]:
    if dataset.format != "coco" or dataset.annotations is None:
        return _coco_of_labels(pages, dataset.name)
    file = await _coco_file(settings, dataset)
    chosen: set[str] = set()
    async for page in pages():
        chosen.update(export.table(page).column("sample_id").to_pylist())
    return _from_thread(piece.encode() for piece in coco_subset.subset(file, frozenset(chosen), dataset.name))


async def _coco_file(settings: Settings, dataset: Dataset) -> Path:
    """The COCO file of a dataset of that format."""
    named = str(dataset.annotations)
    return Path(str(await asyncio.to_thread(check_annotations, named, Path(dataset.root), settings.dataset_roots)))


async def _yolo(services: Services, settings: Settings, dataset: Dataset, pages: Pages) -> AsyncIterator[bytes]:
    """The archive; boxes are read before it begins, so that what is wrong with them is a refusal."""
    if dataset.format != "coco" or dataset.annotations is None:
        raise InvalidRequest(
            "boxes come from a COCO file, and this dataset is none: its labels are of whole images; export list or csv"
        )
    file = await _coco_file(settings, dataset)
    splits = await _splits(services, dataset.id)
    chosen: dict[str, Chosen] = {}
    async for page in pages():
        names = export.table(page).select(["sample_id", "file_name"]).to_pydict()
        pairs = zip(names["sample_id"], names["file_name"], strict=True)
        chosen.update((sample_id, Chosen(name, splits.get(sample_id))) for sample_id, name in pairs)
    boxes = await asyncio.to_thread(Boxes.read, file, chosen)
    files = await asyncio.to_thread(yolo.files, chosen, boxes, dataset.root)
    return _from_thread(_zipped(files))


async def _splits(services: Services, dataset_id: str) -> dict[str, str]:
    """The split of each sample that has one, by id."""
    found: dict[str, str] = {}
    after: int | None = -1
    while after is not None:
        page, after = await services.writer.ask(
            Columns.values, dataset_id, "split", after=after, limit=EXPORT_PAGE_ROWS
        )
        rows = export.table(page).to_pydict()
        found.update(zip(rows["sample_id"], map(str, rows["value"]), strict=True))
    return found


def _zipped(files: Iterator[tuple[str, str]]) -> Iterator[bytes]:
    """The bytes of an archive of named texts, which is the same each time."""
    drain = export.Drain()
    with ZipFile(drain, "w") as archive:
        for name, text in files:
            entry = ZipInfo(name)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text, ZIP_DEFLATED)
            if drain.waiting > ZIP_BYTES:
                yield drain.take()
    yield drain.take()


async def _from_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while batch := await asyncio.to_thread(lambda: list(islice(pieces, ROWS_AT_ONCE))):
        yield b"".join(batch)


async def _coco_of_labels(pages: Pages, name: str) -> AsyncIterator[bytes]:
    """A COCO file of images with labels: numbers are ids, and an annotation has a category and no box."""
    categories: dict[str, int] = {}
    yield json.dumps({"info": {"description": name}}, ensure_ascii=False)[:-1].encode()
    for section, entries_of in (("images", _images), ("annotations", _annotations)):
        separator, number = f', "{section}": [\n', 0
        async for page in pages():
            rows = await asyncio.to_thread(lambda page=page: export.table(page).to_pylist())  # type: ignore[misc]
            entries = entries_of(rows, number, categories)
            if entries:
                yield (separator + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)).encode()
                separator = ",\n"
            number += len(rows)
        yield b"]" if separator == ",\n" else f"{separator}]".encode()
    named = [{"id": category_id, "name": label} for label, category_id in categories.items()]
    yield f', "categories": {json.dumps(named, ensure_ascii=False)}}}\n'.encode()


def _images(rows: list[dict[str, Any]], number: int, categories: dict[str, int]) -> list[dict[str, object]]:
    sides = [{side: int(row[side]) for side in ("width", "height") if isinstance(row.get(side), float)} for row in rows]
    return [
        {"id": number + at + 1, "file_name": row["file_name"], **size}
        for at, (row, size) in enumerate(zip(rows, sides, strict=True))
    ]


def _annotations(rows: list[dict[str, Any]], number: int, categories: dict[str, int]) -> list[dict[str, object]]:
    return [
        {
            "id": number + at + 1,
            "image_id": number + at + 1,
            "category_id": categories.setdefault(row["label"], len(categories) + 1),
        }
        for at, row in enumerate(rows)
        if row["label"] is not None
    ]
