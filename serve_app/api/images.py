"""Routes of images: the file itself and its thumbnail.

A route looks the sample up in the database and opens only the file named there, beneath the dataset's root.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response

from serve_app.api import problems
from serve_app.api.context import ContextNow, ServicesNow
from serve_app.api.sample_path import SAMPLE_ID
from serve_app.api.schemas import ThumbnailSize
from serve_app.errors import DatasetNotFound, InvalidImage, RefusedImage, SampleNotFound
from serve_app.images import decode
from serve_app.images.thumbnails import ThumbnailCache
from serve_app.records import Dataset, FileStamp, SourceFile
from serve_app.sources.reading import Reader
from serve_app.store.datasets import Datasets

router = APIRouter(prefix=f"/datasets/{{dataset_id}}/samples/{SAMPLE_ID}", tags=["datasets"])

IfNoneMatch = Annotated[Annotated[str, Field(max_length=1024)] | SkipJsonSchema[None], Header()]
"""The entity tags of the copies that the client already has."""

SANDBOX = "default-src 'none'; sandbox"


def _documented(description: str) -> dict[int | str, dict[str, Any]]:
    image = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    return {
        200: {"description": description, "content": image},
        304: {"description": "the client has it already"},
        **problems.documented(DatasetNotFound, SampleNotFound, InvalidImage),
    }


@router.get("/image", response_class=Response, responses=_documented("the file, byte for byte"))
async def get_image(
    dataset_id: str,
    sample_id: str,
    services: ServicesNow,
    context: ContextNow,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Get the image file of a sample."""
    dataset, sample = await services.writer.ask(Datasets.sample, dataset_id, sample_id)
    headers = _headers(sample, await _tag(context.reader, dataset, sample))
    if _is_known(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    data, _ = await asyncio.to_thread(_read, context.reader, dataset, sample)
    with _naming(sample):
        content_type = decode.sniff_content_type(data)
    return Response(data, headers=headers, media_type=content_type)


@router.get("/thumbnail", response_class=Response, responses=_documented("upright, without metadata"))
async def get_thumbnail(
    dataset_id: str,
    sample_id: str,
    services: ServicesNow,
    context: ContextNow,
    size_px: ThumbnailSize = 256,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Get a small copy of a sample's image, upright and without metadata."""
    dataset, sample = await services.writer.ask(Datasets.sample, dataset_id, sample_id)
    headers = _headers(sample, await _tag(context.reader, dataset, sample, str(size_px)))
    if _is_known(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    async with context.thumbnail_slots:
        data = await asyncio.to_thread(_thumbnail, context.reader, context.thumbnails, dataset, sample, size_px)
    return Response(data, headers=headers, media_type=decode.sniff_content_type(data))


async def _tag(reader: Reader, dataset: Dataset, sample: SourceFile, *variant: str) -> str:
    [(size_bytes, mtime_ns)] = await asyncio.to_thread(reader.examine, dataset.root, [sample])
    if mtime_ns < 0:
        raise SampleNotFound(f"{sample.file_name} is gone or cannot be read; rescan the dataset.")
    return '"' + "-".join((f"{size_bytes:x}", f"{mtime_ns:x}", *variant)) + '"'


def _is_known(tag: str, if_none_match: str | None) -> bool:
    known = (part.strip().removeprefix("W/") for part in (if_none_match or "").split(","))
    return any(part in (tag, "*") for part in known)


def _headers(sample: SourceFile, tag: str) -> dict[str, str]:
    file_name = quote(sample.file_name.rpartition("/")[2], safe="")
    return {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"inline; filename*=UTF-8''{file_name}",
        "Content-Security-Policy": SANDBOX,
    }


def _read(reader: Reader, dataset: Dataset, sample: SourceFile) -> tuple[bytes, FileStamp]:
    try:
        return reader.read(dataset.root, sample, max_bytes=decode.DEFAULT_LIMITS.max_bytes)
    except RefusedImage as error:
        raise SampleNotFound(f"{sample.file_name}: {error.detail}") from None


@contextmanager
def _naming(sample: SourceFile) -> Iterator[None]:
    """Add the file's name to the message of an `InvalidImage`."""
    try:
        yield
    except InvalidImage as error:
        raise InvalidImage(f"{sample.file_name}: {error.detail}") from None


def _thumbnail(reader: Reader, cache: ThumbnailCache, dataset: Dataset, sample: SourceFile, size_px: int) -> bytes:
    """The thumbnail of the file as it is now; it comes from the cache if it was made before."""
    [(size_bytes, mtime_ns)] = reader.examine(dataset.root, [sample])
    kept = cache.get(cache.key(dataset.id, sample.sample_id, size_bytes, mtime_ns, size_px))
    if kept is not None:
        return kept
    data, stamp = _read(reader, dataset, sample)
    with _naming(sample):
        made = decode.thumbnail(data, size_px)
    cache.put(cache.key(dataset.id, sample.sample_id, stamp.size_bytes, stamp.mtime_ns, size_px), made)
    return made
