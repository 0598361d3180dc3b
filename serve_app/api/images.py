"""Routes of images: the file itself and its thumbnail.

A route looks the sample up in the database and opens only the file named there, beneath the dataset's root.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header
from pydantic import Field
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response

from serve_app.api import problems
from serve_app.api.context import ContextNow, ImageVisit, ServicesNow, ThumbnailVisit
from serve_app.api.sample_path import SAMPLE_ID
from serve_app.api.schemas import ThumbnailSize
from serve_app.errors import DatasetNotFound, InvalidImage, OutsideRoots, Overloaded, RefusedImage, SampleNotFound
from serve_app.images import decode
from serve_app.images.thumbnails import ThumbnailCache
from serve_app.records import Dataset, FileStamp, SourceFile
from serve_app.sources.files import UNKNOWN, Stat
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
        **problems.documented(DatasetNotFound, SampleNotFound, OutsideRoots, InvalidImage, Overloaded),
    }


@router.get("/image", response_class=Response, responses=_documented("the file, byte for byte"))
async def get_image(
    dataset_id: str,
    sample_id: str,
    services: ServicesNow,
    context: ContextNow,
    visit: ImageVisit,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Get the image file of a sample."""
    dataset, sample = await services.writer.ask(Datasets.sample, dataset_id, sample_id)
    stat = await visit.run(_stat, context.reader, dataset, sample)
    if stat != UNKNOWN and _is_known(_tag(*stat), if_none_match):
        return Response(status_code=304, headers=_headers(sample, _tag(*stat)))
    data, stamp = await visit.run(_read, context.reader, dataset, sample)
    with _naming(sample):
        content_type = decode.sniff_content_type(data)
    tag = _tag(*stat) if stat != UNKNOWN else f'"{stamp.content_hash}"'
    return Response(visit.hold(data), headers=_headers(sample, tag), media_type=content_type)


@router.get("/thumbnail", response_class=Response, responses=_documented("upright, without metadata"))
async def get_thumbnail(
    dataset_id: str,
    sample_id: str,
    services: ServicesNow,
    context: ContextNow,
    visit: ThumbnailVisit,
    size_px: ThumbnailSize = 256,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Get a small copy of a sample's image, upright and without metadata."""
    dataset, sample = await services.writer.ask(Datasets.sample, dataset_id, sample_id)
    stat = await visit.run(_stat, context.reader, dataset, sample)
    if stat != UNKNOWN and _is_known(_tag(*stat, size_px), if_none_match):
        return Response(status_code=304, headers=_headers(sample, _tag(*stat, size_px)))
    data = await visit.run(thumbnail_of, context.reader, context.thumbnails, dataset, sample, size_px)
    tag = _tag(*stat, size_px) if stat != UNKNOWN else f'"{hashlib.sha256(data).hexdigest()}"'
    return Response(data, headers=_headers(sample, tag), media_type=decode.sniff_content_type(data))


def _stat(reader: Reader, dataset: Dataset, sample: SourceFile) -> Stat:
    """The size and change mark of a sample's file; `UNKNOWN` for one of the web whose server does not tell them."""
    [stat] = reader.examine(dataset.root, [sample])
    return stat


def _tag(size_bytes: int, mark: int, *variant: int) -> str:
    """The entity tag of a file with this size and change mark."""
    return '"' + "-".join(f"{number:x}" for number in (size_bytes, mark, *variant)) + '"'


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


def thumbnail_of(reader: Reader, cache: ThumbnailCache, dataset: Dataset, sample: SourceFile, size_px: int) -> bytes:
    """The thumbnail of the file as it is now; it comes from the cache if it was made before.

    Raises:
        OutsideRoots: the dataset is not below the roots any more.
        SampleNotFound: the file cannot be read.
        InvalidImage: the file is no image that can be decoded.
    """
    stat = _stat(reader, dataset, sample)
    kept = cache.get(cache.key(dataset.id, sample.sample_id, *stat, size_px)) if stat != UNKNOWN else None
    if kept is not None:
        return kept
    data, stamp = _read(reader, dataset, sample)
    with _naming(sample):
        made = decode.thumbnail(data, size_px)
    if stat != UNKNOWN:
        cache.put(cache.key(dataset.id, sample.sample_id, stamp.size_bytes, stamp.mtime_ns, size_px), made)
    return made
